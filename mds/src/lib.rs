//! Sateen's metadata server: names, attributes, layouts, and the registry of a cluster.
//!
//! The core is a deterministic function ([`namespace::apply`]) over tables ([`store`]); one [`writer`] thread per file
//! system feeds it. Around it are what lives in memory ([`clients`], [`registry`]), the shells that join them ([`fs`],
//! [`cluster`]), and the doors ([`rpc`], [`workers`]). What this crate never does: touch file data, or decide from a
//! clock or a random number inside the core.

pub mod capabilities;
pub mod clients;
pub mod cluster;
pub mod command;
pub mod config;
pub mod dir;
pub mod fencing;
pub mod fs;
pub mod fsck;
pub mod locks;
pub mod mdt_disk;
pub mod metrics;
pub mod namespace;
pub mod offline;
pub mod oss_client;
pub mod placement;
pub mod registry;
pub mod rpc;
pub mod server;
pub mod store;
pub mod workers;
pub mod writer;
