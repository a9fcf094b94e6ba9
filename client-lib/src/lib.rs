//! The client of Sateen: names and attributes from the MDS, bytes straight from the OSTs.
//!
//! [`Client`] is a session on one file system, cheap to clone; [`File`] is an open file of it. Both are async and run
//! on the caller's tokio runtime. [`blocking`] wraps them for programs without one, and is the only part that starts
//! threads of its own. The library installs no logger, signal handler or panic hook.
//!
//! ```no_run
//! # async fn example() -> sateen_types::FsResult<()> {
//! use sateen_client::{Access, Client, Credential, Name, NewFile, Options};
//!
//! let client = Client::connect(&"mds1:9880:/scratch".parse()?, Options::default()).await?;
//! let name = Name::parse(b"hello")?;
//! let new = NewFile { parent: client.root(), name, mode: 0o644.into(), exclusive: false, access: Access::WRITE, layout: None };
//! let created = client.create(&Credential::ROOT, new).await?;
//! created.file.write_at(0, b"hello, world\n").await?;
//! created.file.fsync().await?;
//! created.file.close().await?;
//! client.close().await
//! # }
//! ```
//!
//! What it promises:
//! - a change of the namespace takes effect exactly once, however often its request had to be sent again;
//! - a successful [`File::fsync`] means the data is on the disks of its OSTs and the size at the MDS;
//! - an error of a write that had been accepted into the cache is reported once per open file, by the next
//!   [`File::fsync`], [`File::flush`] or [`File::close`];
//! - every call ends: with an answer, or with an error after [`Options::retry_for`];
//! - memory is bounded by [`Options::dirty_bytes_max`] and [`Options::cache_bytes_max`].

pub mod admin;
mod ahead;
mod append;
mod atime;
pub mod blocking;
mod budget;
mod cache;
mod changelog;
mod client;
mod closing;
mod commit;
mod dirty;
mod durable;
mod expiry;
mod failure;
mod file;
mod fill;
mod inner;
mod inode;
mod lease;
mod listing;
mod loads;
mod locks;
mod lookup;
pub mod maintenance;
mod mds;
mod namespace;
mod opens;
mod options;
mod osts;
mod outage;
mod plan;
mod ranges;
mod read;
mod readahead;
mod recalls;
mod report;
mod repository;
mod retry;
mod seal;
mod seek;
mod session;
mod slots;
mod small;
mod source;
mod table;
mod tasks;
mod tend;
#[cfg(test)]
mod testing;
mod together;
mod transport;
mod truncate;
mod unstable;
mod write;
mod writeback;

pub use atime::AccessTimes;
pub use client::{Client, Created, DefaultLayout, Looked, NameErrors, NewFile, StatFs};
pub use file::File;
pub use fill::Fill;
pub use listing::DirPage;
pub use options::Options;
pub use readahead::Advice;
pub use recalls::Forget;
pub use repository::Shift;
pub use source::MountSource;

pub use sateen_types::op::{Access, DirEntry, NewMode, RenameMode, SetAttr, SetTime, XattrMode};
pub use sateen_types::{Attr, Credential, Fid, FsCode, FsError, FsResult, Layout, LayoutTemplate, Name, XattrName};
pub use sateen_types::{Lock, LockClass, LockMode, LockRange};
