//! The check of a store: does its index agree with itself and with its segments?
//!
//! 1. [`objects`]: every row of the index, object by object: does it decode, do counters and sizes agree with the chunks?
//! 2. [`extents`]: segment by segment: is every extent inside its file and nobody else's; with `deep`, is every stored
//!    byte read and verified?
//! 3. [`space`]: are space and counters of the store as a whole what the chunks add up to; are there segments that the
//!    index does not know?
//!
//! # Invariants
//!
//! - The check reads one snapshot of the index and keeps a bounded part of it in memory ([`extents::BATCH_EXTENTS`]).
//! - Without `repair` nothing on disk changes.
//! - A repair only corrects what follows from the chunks' own records (counters, space, headers) and moves what nobody
//!   knows aside. It never drops a chunk, never makes a hole, and does nothing that depends on rows it could not read.
//! - What is wrong in a store at work is looked at again under the object's lock before it is reported.

pub mod extents;
pub mod objects;
pub mod repair;
pub mod rows;
pub mod space;

use std::io;

use sateen_types::{FsResult, Tally};

use super::disk::{Disk, SegmentId};
use super::index::Index;
use super::keys::ChunkKey;
use super::segments::{ReadError, SegmentOwner};
use repair::Repairs;
use rows::View;
use sateen_types::fsck::Report;

/// A store to check, and how.
pub struct Job<'a> {
    /// Whose store it is.
    pub owner: SegmentOwner,
    /// Whether `owner.ost` is known; without the superblock it is not, and headers are not compared.
    pub ost_known: bool,
    /// Its index, as of one moment.
    pub view: View<'a>,
    /// Its segments.
    pub disk: &'a dyn Disk,
    /// Read and verify every stored byte.
    pub deep: bool,
    /// Correct what can be corrected. Only for a store that nobody else has open.
    pub repair: Option<Offline<'a>>,
    /// Set while the store is at work.
    pub online: Option<Online<'a>>,
}

/// What repairs need.
#[derive(Clone, Copy)]
pub struct Offline<'a> {
    /// The index that `view` was taken from, writable.
    pub index: &'a Index,
    /// Moves the file of a segment where the store does not look.
    pub put_aside: &'a dyn Fn(SegmentId) -> io::Result<()>,
}

/// What a check of a store at work needs.
#[derive(Clone, Copy)]
pub struct Online<'a> {
    /// Reads a chunk as it is now, under its object's lock; what is wrong with it, if anything is.
    pub look_again: &'a dyn Fn(ChunkKey) -> FsResult<Option<ReadError>>,
    /// Called with the bytes read so far since its last call, to keep the check slow.
    pub pace: &'a dyn Fn(u64),
}

/// Checks one store. Errors are only those of the check itself: it was stopped, or a repair could not be written.
pub fn check(job: &Job<'_>, report: &mut Report<'_>) -> FsResult<()> {
    let repairs = Repairs::new(job.repair);
    let usage = objects::check(job, &repairs, report)?;
    extents::check(job, &usage, &repairs, report)?;
    space::check(job, &usage, &repairs, report)?;
    repairs.finish()?;
    report.count(|tally: &mut Tally| tally.file_systems += 1);
    Ok(())
}
