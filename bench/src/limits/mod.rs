//! What this machine can do without Sateen: the bounds that the cases are related to.
//!
//! Each limit is what a program could reach that did only the one thing the case cannot do without. It uses the same
//! sizes, the same concurrency and, where two sides talk, two processes.

pub mod disk;
pub mod fuse_null;
pub mod local;
pub mod memory;
pub mod rpc;
pub mod s3;
pub mod tcp;
