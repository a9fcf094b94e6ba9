//! What every process needs to start, to stop, to be watched, and to keep a small file safely: configuration, logging,
//! metrics, shutdown, durable replacement of files, and the lock that keeps a second server out of a directory.
//!
//! Nothing here knows what the process does.

pub mod bytesize;
pub mod config;
pub mod dirlock;
pub mod durable;
pub mod envelope;
pub mod metrics;
pub mod rocksdb_log;
pub mod shutdown;
pub mod telemetry;

pub use bytesize::ByteSize;
pub use dirlock::DirLock;
pub use shutdown::Shutdown;
