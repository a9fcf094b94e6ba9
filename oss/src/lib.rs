//! The object storage server.

pub mod store;
