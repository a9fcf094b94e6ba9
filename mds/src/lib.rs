//! Sateen's metadata server: names, attributes, layouts, and the registry of a cluster.
//!
//! The core is a deterministic function ([`namespace::apply`]) over tables ([`store`]); everything else asks it. What
//! this crate never does: touch file data, or decide from a clock or a random number inside the core.

pub mod clients;
pub mod command;
pub mod namespace;
pub mod placement;
pub mod store;
pub mod writer;
