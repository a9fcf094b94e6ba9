//! Objects whose record the index has lost while it still has chunks of theirs.
//!
//! No change ever leaves such an object, so it is damage, and how much else is missing nobody knows: it is an error to
//! read it, to ask for its size or its extents, and to change a part of it. It is never a hole, and never gets a new
//! record. What takes data away for good may still do so: [`Store::destroy`] and a truncate to nothing end the damage,
//! any other truncate leaves an object that is as damaged as before.
//!
//! An object that has its record costs nothing here; one that has none costs a seek.

use sateen_types::{FsResult, ObjectId};

use super::keys::ObjectKey;
use super::records::ObjectRecord;
use super::segments::ReadError;
use super::{Locked, Resize, Store};

impl Store {
    /// The record of an object; `None` if there is nothing of it.
    pub(super) fn object_or_nothing(&self, object: &ObjectId) -> FsResult<Option<ObjectRecord>> {
        let key = ObjectKey::of(object);
        let found = self.index.object(key)?;
        if found.is_some() || self.index.first_chunk(key)?.is_none() {
            return Ok(found);
        }
        // Its first write may have come in between.
        self.locked_object(&self.lock(object))
    }

    /// [`Store::object_or_nothing`] of a locked object.
    pub(super) fn locked_object(&self, locked: &Locked<'_>) -> FsResult<Option<ObjectRecord>> {
        let found = self.index.object(locked.key)?;
        if found.is_none()
            && let Some(chunk) = self.index.first_chunk(locked.key)?
        {
            return Err(self.damage(&locked.key.object(self.owner.fs), chunk, &lost_record()));
        }
        Ok(found)
    }

    /// Takes away what a locked orphan has from `size` on; returns the change of space. What is left stays an orphan,
    /// and something must be, unless nothing shall be: without any chunk the object would read as zeros.
    pub(super) fn truncate_orphan(
        &self,
        locked: &Locked<'_>,
        chunk_log2: u8,
        size: u64,
        first_chunk: u64,
    ) -> FsResult<i64> {
        let object = locked.key.object(self.owner.fs);
        if size > 0 && first_chunk << chunk_log2 >= size {
            return Err(self.damage(&object, first_chunk, &lost_record()));
        }
        tracing::warn!(ost = %self.owner.ost, %object, size, "cuts an object whose record is lost");
        self.cut(locked, chunk_log2, size, Resize::Orphan)
    }
}

/// What is wrong with the chunks of such an object.
pub(super) fn lost_record() -> ReadError {
    ReadError::Damaged("the index has lost the record of its object".to_owned())
}
