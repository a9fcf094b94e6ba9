//! Verifying chunks of a store at work: the steps of a scrub, and the check on demand.
//!
//! A chunk is first read without a lock; what does not hold is read again under the object's lock, where its record
//! cannot change. Only that is damage.

use rocksdb::{Direction, IteratorMode, ReadOptions};
use sateen_types::{FsCode, FsError, FsResult};

use super::Store;
use super::fsck::rows::View;
use super::fsck::{self, Job, Online};
use super::index::error;
use super::keys::{CF_CHUNKS, ChunkKey};
use super::read;
use super::records::ChunkRecord;
use super::segments::ReadError;
use sateen_types::fsck::Report;

/// Chunks looked up at once for a scrub.
const STEP_CHUNKS: usize = 64;
/// How often a moment without a running commit is waited for.
const QUIET_TRIES: u32 = 100;

/// What one step of a scrub did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// The last chunk that was looked at; `None`: there are no more.
    pub last: Option<ChunkKey>,
    /// Chunks verified.
    pub chunks: u64,
    /// Stored bytes read.
    pub bytes: u64,
    /// Chunks that cannot be read.
    pub damaged: u64,
}

impl Store {
    /// Verifies the next chunks after `after` as they are on the medium.
    pub fn scrub(&self, after: Option<ChunkKey>) -> FsResult<Step> {
        let mut step = Step::default();
        for (key, record) in self.chunks_after(after)? {
            let bytes = record.as_ref().map_or(0, |r| u64::from(r.stored_len));
            let sound = record.is_ok_and(|record| self.verify_on_medium(&record).is_ok());
            if sound {
                self.damaged.forget(key);
            } else if self.look_again(key)?.is_some() {
                step.damaged += 1;
            }
            step.chunks += 1;
            step.bytes += bytes;
            step.last = Some(key);
        }
        Ok(step)
    }

    /// Checks the store while it serves.
    pub fn check(&self, deep: bool, pace: &dyn Fn(u64), report: &mut Report<'_>) -> FsResult<()> {
        let job = Job {
            owner: self.owner,
            ost_known: true,
            view: self.quiet_view()?,
            disk: self.segments.disk(),
            deep,
            repair: None,
            online: Some(Online { look_again: &|key| self.look_again(key), pace }),
        };
        fsck::check(&job, report)
    }

    /// The index between two commits: only then do its rows alone tell what is in use.
    fn quiet_view(&self) -> FsResult<View<'_>> {
        for _ in 0..QUIET_TRIES {
            {
                let _gate = self.gate.write();
                if !self.pending.lock().is_committing() {
                    return Ok(View::of(&self.index));
                }
            }
            self.commit()?;
        }
        Err(FsError::new(FsCode::Busy, "there was no moment without a commit").with_hint("try again"))
    }

    /// What is wrong with a chunk as it is now, if anything is. Damage is noted.
    fn look_again(&self, key: ChunkKey) -> FsResult<Option<ReadError>> {
        let object = key.object.object(self.owner.fs);
        let _locked = self.lock(&object);
        let read = match self.index.chunk(key) {
            Ok(None) => Ok(()),
            Ok(Some(record)) => self.verify_on_medium(&record),
            Err(e) => Err(ReadError::Damaged(e.message)),
        };
        match read {
            Ok(()) => {
                self.damaged.forget(key);
                Ok(None)
            }
            Err(why) => {
                let _ = self.damage(&object, key.number, &why);
                Ok(Some(why))
            }
        }
    }

    fn verify_on_medium(&self, record: &ChunkRecord) -> Result<(), ReadError> {
        let len = record.stored_len as usize;
        let stored = self.segments.read_from_medium(record.segment, record.offset, len)?;
        read::check(record, &stored)?;
        read::open(record, stored).map(drop)
    }

    /// The next chunks in key order, with the error of a row that does not decode.
    fn chunks_after(&self, after: Option<ChunkKey>) -> FsResult<Vec<(ChunkKey, FsResult<ChunkRecord>)>> {
        let start = after.map(|key| key.to_bytes().to_vec()).unwrap_or_default();
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mode = IteratorMode::From(&start, Direction::Forward);
        let mut found = Vec::new();
        for row in self.index.db.iterator_cf_opt(&self.index.cf(CF_CHUNKS), options, mode) {
            let (key, value) = row.map_err(|e| error("read chunks", &e))?;
            let Ok(key) = ChunkKey::from_bytes(&key) else { continue };
            if Some(key) != after {
                found.push((key, ChunkRecord::decode(&value)));
            }
            if found.len() == STEP_CHUNKS {
                break;
            }
        }
        Ok(found)
    }
}
