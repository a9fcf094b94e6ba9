//! The worker of data repositories: executes what the MDS decides (imports, loads of released files, exports, looks at what changed)
//! with any object store.
//!
//! It keeps no state: assignments belong to its session at the MDS, and go to another worker when that ends. Bytes go from the
//! store straight to the OSTs through client-lib. What is *not* here: any decision on what is imported or loaded when, which is
//! the MDS's; paths and permissions; the state of files.

pub mod config;
pub mod credentials;
mod export;
mod fetch;
pub mod figures;
mod import;
pub mod posix;
pub mod remote;
mod report;
mod room;
mod seen;
pub mod server;
mod watch;
mod worker;
