//! Exports against a real S3 server, of files that are in memory.
