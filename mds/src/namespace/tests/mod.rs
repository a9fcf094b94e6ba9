//! The core on both stores: a bench with one helper per operation, and tests named for what users would notice.
//! [`super::check`] runs after every command.

mod acl;
pub(crate) mod bench;
mod changelog;
mod export;
mod files;
mod held;
mod model;
mod names;
mod once;
mod permissions;
mod repository;
mod tasks;
mod told;

use bench::{Bench, on_every_store};
