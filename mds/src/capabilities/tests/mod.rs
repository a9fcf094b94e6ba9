//! The table by name ([`directed`]), and in a world of clients whose messages are late, lost and sent twice: random walks
//! ([`property`]), and all of them up to a bound ([`exhaustive`]).

mod directed;
mod exhaustive;
mod property;
mod world;

use super::*;
