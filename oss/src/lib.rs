//! The object storage server: keeps the chunks of objects on OSTs and serves them over gRPC.
//!
//! It knows objects and bytes; it never sees a path, a user or the layout of a whole file. Clients talk to it directly;
//! the MDS hears only how it is.
//!
//! - [`store`]: the chunk store, one per OST and file system. Start there.
//! - [`ost`], [`superblock`]: one OST directory and who it is.
//! - [`rpc`], [`server`]: the service and the process around it. [`registration`]: the MDS's side of its life.
//! - [`scrub`]: reads everything again and again. [`metrics`]: figures for Prometheus.
//! - [`offline`]: the check of an OST that nobody serves (`sateen fsck --dir`).
//! - [`config`]: its settings.
//!
//! Promises: what was answered survives `kill -9` of the process; what was committed survives a power cut; damaged data
//! is an error, never wrong bytes; a full or failed disk is an error before anything is lost.
//! Formats on disk are in `docs/formats-oss.md`.

pub mod config;
pub mod metrics;
pub mod offline;
pub mod ost;
pub mod registration;
pub mod rpc;
pub mod scrub;
pub mod server;
pub mod store;
pub mod superblock;
