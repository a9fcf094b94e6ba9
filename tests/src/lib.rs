//! Real processes under test: a cluster of `sateen-mds`, `sateen-oss` and mounts in a private directory, and what a
//! scenario needs to drive it.
//!
//! The scenarios are in `tests/*.rs`, one file per promise. Nothing here fakes a server: every test talks to the
//! binaries that are shipped, found by [`bins`]. What is *not* here: unit tests (beside the code they test) and fault
//! injection inside a process.
//!
//! Invariants:
//! - Tests are independent and may run at the same time: each has its own directory ([`scratch`]), ports ([`ports`])
//!   and processes ([`process`]).
//! - Whatever happens to a test (success, panic, `kill -9` of the test itself), no process and no mount stays behind.
//!   `Drop` does the first two; a [`guard`] process and the kernel's parent-death signal do the third.
//! - Nothing waits blindly: every wait polls a condition and has a deadline ([`wait`]).

pub mod azurite;
pub mod bins;
pub mod cluster;
pub mod command;
pub mod damage;
pub mod disk;
pub mod guard;
pub mod invented;
pub mod ledger;
pub mod linear;
pub mod locker;
pub mod map;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod mount;
pub mod names;
pub mod netns;
pub mod pair;
pub mod peer;
pub mod plain;
pub mod ports;
pub mod process;
pub mod register;
pub mod repository;
pub mod rings;
pub mod rng;
pub mod rpc;
pub mod s3;
pub mod s3_proxy;
pub mod scratch;
pub mod size;
pub mod syncs;
pub mod tree;
pub mod wait;
pub mod wire;

pub use cluster::{Cluster, ClusterSpec};
pub use command::{Done, run, run_ok};
pub use mount::{Mount, MountSpec};
pub use pair::Pair;
