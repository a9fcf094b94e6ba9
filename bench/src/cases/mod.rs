//! What Sateen does, through the client library (`client.*`), through the mount (`fuse.*`), and with a
//! bucket (`repo.*`).
//!
//! A case prepares what it needs (not timed), waits until the machine is quiet, measures once, and checks what came out
//! (not timed, where checking costs). "Cold" and "uncached" are made by new sessions, new mounts and dropped page caches,
//! never by trust in a cache being small.

pub mod client_meta;
pub mod client_rand;
pub mod client_seq;
pub mod fuse_files;
pub mod fuse_rand;
pub mod fuse_seq;
pub mod fuse_small;
pub mod fuse_tree;
pub mod repo;
pub mod repo_visible;
