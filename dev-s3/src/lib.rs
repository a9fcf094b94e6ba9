//! An S3 server for development and tests: buckets in a directory, on this machine only. Not for data that anybody needs.
//!
//! The protocol and the check of signatures are s3s; what is kept, and how, is [`store`]. (s3s-fs, the file backend that s3s brings,
//! maps keys to paths: it cannot hold keys such as `a//b`, `a/../b`, or `a` beside `a/b`, which buckets do hold. It lists neither ETags nor
//! keys that end with a slash, and ignores If-Match of a GET.) What is *not* here: versions, policies, anything but path-style addresses.

mod multipart;
pub mod notify;
pub mod sample;
pub mod server;
mod service;
pub mod store;
