//! Both sides have changed what is under a key: neither is touched here. What is to be done is decided by the policy of the link, or by
//! somebody, and carried out as [`super::export`] says.

use sateen_types::repository::{ImportedObject, skip_code};
use sateen_types::{Fid, FsResult};

use super::agree;
use super::import::{Import, Imported};
use crate::store::records::HsmRecord;

/// Something that was made here, or moved here, has the name of an object.
pub(super) fn stranger(import: &mut Import<'_>, fid: Fid, object: &ImportedObject) -> FsResult<Imported> {
    if agree::further_etag(import.tx, fid, import.id, &object.key)?.is_some_and(|etag| etag == object.etag) {
        return Ok(Imported::Same);
    }
    note(import, fid, object, "", "something made here has the name")
}

/// A file was changed here, and its object is another one than it was made of.
pub(super) fn both_changed(
    import: &mut Import<'_>,
    fid: Fid,
    row: &HsmRecord,
    object: &ImportedObject,
) -> FsResult<Imported> {
    note(import, fid, object, &row.etag, "the file was changed here, and its object as well")
}

/// A file was changed here, and its object is gone.
pub(super) fn changed_and_gone(import: &mut Import<'_>, fid: Fid, row: &HsmRecord) -> FsResult<()> {
    if agree::waits(import.tx, fid)? {
        return Ok(());
    }
    agree::note_conflict(import.tx, (import.id, &row.key), fid, None, &row.etag, import.inputs.now)
}

/// A file that waits for its export is left to that: it may be that its object is its own.
fn note(
    import: &mut Import<'_>,
    fid: Fid,
    object: &ImportedObject,
    known_etag: &str,
    what: &str,
) -> FsResult<Imported> {
    if agree::waits(import.tx, fid)? {
        return Ok(Imported::Same);
    }
    let now = import.inputs.now;
    agree::note_conflict(import.tx, (import.id, &object.key), fid, Some(object), known_etag, now)?;
    Ok(Imported::Skipped(skip_code::CONFLICT, what.to_owned()))
}
