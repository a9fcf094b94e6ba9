//! Objects that an import need not look at: what their attributes are would change nothing.
//!
//! What is said is of the moment of the question. The page that names such an object comes later, and does nothing with it: whatever
//! happened here in between is as if it had happened after the page. What happened in the bucket after the listing the next listing tells,
//! or an event.

use std::collections::HashMap;

use sateen_types::repository::{ImportedObject, ObjectPath};
use sateen_types::{Fid, FsResult, HsmFlags, RepositoryId};

use super::import::{directory_at, is_as_known, is_of};
use super::{agree, hsm, links};
use crate::namespace::tree;
use crate::store::ReadTxn;

/// Which of these objects, as a listing tells of them, an import would leave as they are.
pub fn known(tx: &dyn ReadTxn, id: RepositoryId, objects: &[ImportedObject]) -> FsResult<Vec<bool>> {
    let Some(link) = links::find(tx, id)? else { return Ok(vec![false; objects.len()]) };
    // Most objects of a page are in few directories.
    let mut dirs: HashMap<&[u8], Option<Fid>> = HashMap::new();
    let mut known = Vec::with_capacity(objects.len());
    for object in objects {
        known.push(match named(tx, link.root, object, &mut dirs)? {
            Some(fid) => is_known(tx, id, fid, object)?,
            None => false,
        });
    }
    Ok(known)
}

/// What has the name of an object.
fn named<'o>(
    tx: &dyn ReadTxn,
    root: Fid,
    object: &'o ImportedObject,
    dirs: &mut HashMap<&'o [u8], Option<Fid>>,
) -> FsResult<Option<Fid>> {
    let Ok(path) = ObjectPath::parse(&object.key) else { return Ok(None) };
    let Some((name, above)) = path.names.split_last() else { return Ok(None) };
    let end = usize::from(path.directory) + name.as_bytes().len();
    let prefix = &object.key[..object.key.len() - end];
    let dir = match dirs.get(prefix) {
        Some(known) => *known,
        None => *dirs.entry(prefix).or_insert(directory_at(tx, root, above)?),
    };
    match dir {
        Some(dir) => Ok(tree::entry(tx, dir, name)?.map(|entry| entry.fid)),
        None => Ok(None),
    }
}

fn is_known(tx: &dyn ReadTxn, id: RepositoryId, fid: Fid, object: &ImportedObject) -> FsResult<bool> {
    let Some(row) = hsm(tx, fid)? else { return Ok(false) };
    if is_of(&row, id, object) {
        return Ok(is_as_known(&row, object) && !row.flags.has(HsmFlags::LOST));
    }
    // A further name of a file that was stored from here.
    Ok(agree::further_etag(tx, fid, id, &object.key)?.is_some_and(|etag| etag == object.etag))
}
