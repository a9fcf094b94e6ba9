//! What the MDS keeps: tables of bytes under a small transaction trait.
//!
//! [`keys`] and [`records`] say what the bytes mean, [`txn`] how a command reads and writes them, [`rocks`] and [`mem`]
//! where they live. RocksDB's types stay in [`rocks`]; nothing above this module knows which store it runs on.

pub mod codec;
pub mod keys;
pub mod mem;
pub mod records;
pub mod rocks;
pub mod txn;

pub use mem::MemStore;
pub use rocks::{RocksOptions, RocksStore};
pub use txn::{MemoryTxn, Overlay, ReadTxn, Row, Store, Table, Txn, WriteSet};

#[cfg(test)]
mod conformance;
