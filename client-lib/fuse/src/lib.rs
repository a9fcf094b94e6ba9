//! Mounts a Sateen file system through FUSE.
//!
//! A thin shell: names, permissions, caching and striping are the client library's (`sateen-client`) and the servers'.
//! Here are the kernel's protocol ([`fuser`]), inode numbers, handles, mount options and the mount itself.
//!
//! * `shell.rs`: callbacks, nothing but decoding and replying; `worker.rs`: the threads behind them;
//!   `answers.rs`: data to the kernel without copies;
//! * `ring/`: the same by io_uring, where the kernel offers it;
//! * `caller.rs`: what `/proc` knows about the thread behind a request;
//! * `kernel_cache.rs`: what the kernel keeps and is made to forget; `shared.rs`: files that other mounts write to;
//! * `fs/`: the operations, callable without a mount;
//! * `kernel.rs`, `mount.rs`: attaching, readiness, detaching;
//! * `xattr_hints.rs`: which files have no ACL and no capabilities;
//! * `options.rs`: what stands behind `-o`.

mod answers;
mod caller;
mod convert;
mod credential;
mod errno;
mod fs;
mod handles;
mod init;
pub mod kernel;
mod kernel_cache;
mod mount;
mod options;
mod ring;
mod shared;
mod shell;
mod worker;
mod xattr_hints;

pub use mount::{Mount, client_options};
pub use options::{MountOptions, Patience, Requests};
pub use ring::unbound;
