//! Keys of `exports`: what waits to be carried over to repositories, and what is known of objects beside the row in `hsm`.
//!
//! Objects are named by their link and the key within its prefix.

use sateen_types::{Fid, FsResult, RepositoryId};

use super::{array, corrupt, sized};

/// First byte of what waits, link by link in the order of numbers.
pub const QUEUE: u8 = b'q';
/// First byte of files that wait.
pub const WAITING: u8 = b'f';
/// First byte of directories below which everything waits.
pub const TREE: u8 = b't';
/// First byte of objects that are to be deleted.
pub const DELETION: u8 = b'd';
/// First byte of objects of further names of a file, by file.
pub const FURTHER: u8 = b'l';
/// First byte of the same, by object.
pub const FURTHER_OBJECT: u8 = b'k';
/// First byte of objects that are being stored, or that no file has any more.
pub const OBJECT: u8 = b'g';
/// First byte of conflicts.
pub const CONFLICT: u8 = b'c';
/// First byte of how many rows wait of a link.
pub const COUNT: u8 = b'n';
/// First byte of what cannot be exported of a link.
pub const SKIPPED: u8 = b's';

fn of_link(tag: u8, id: RepositoryId, rest: &[u8]) -> Vec<u8> {
    [&[tag][..], &id.0.to_be_bytes(), rest].concat()
}

fn of_file(tag: u8, fid: Fid, rest: &[u8]) -> Vec<u8> {
    [&[tag][..], &fid.to_bytes(), rest].concat()
}

/// All that waits of a link.
pub fn queue(id: RepositoryId) -> Vec<u8> {
    of_link(QUEUE, id, &[])
}

/// One thing that waits.
pub fn item(id: RepositoryId, number: u64) -> Vec<u8> {
    of_link(QUEUE, id, &number.to_be_bytes())
}

/// Where a file waits.
pub fn waiting(fid: Fid) -> Vec<u8> {
    of_file(WAITING, fid, &[])
}

/// Where a directory waits for everything below it.
pub fn tree(dir: Fid) -> Vec<u8> {
    of_file(TREE, dir, &[])
}

/// The deletion of an object.
pub fn deletion(id: RepositoryId, object: &[u8]) -> Vec<u8> {
    of_link(DELETION, id, object)
}

/// All deletions of a link.
pub fn deletions(id: RepositoryId) -> Vec<u8> {
    of_link(DELETION, id, &[])
}

/// The object of a further name of a file.
pub fn further(fid: Fid, id: RepositoryId, object: &[u8]) -> Vec<u8> {
    of_file(FURTHER, fid, &[&id.0.to_be_bytes()[..], object].concat())
}

/// All objects of further names of a file.
pub fn further_of(fid: Fid) -> Vec<u8> {
    of_file(FURTHER, fid, &[])
}

/// The file of which an object is a further name.
pub fn further_object(id: RepositoryId, object: &[u8]) -> Vec<u8> {
    of_link(FURTHER_OBJECT, id, object)
}

/// All objects of a link that are further names of files.
pub fn further_objects(id: RepositoryId) -> Vec<u8> {
    of_link(FURTHER_OBJECT, id, &[])
}

/// What may be under a key.
pub fn object(id: RepositoryId, object: &[u8]) -> Vec<u8> {
    of_link(OBJECT, id, object)
}

/// The same of all keys of a link.
pub fn objects(id: RepositoryId) -> Vec<u8> {
    of_link(OBJECT, id, &[])
}

/// The conflict of an object.
pub fn conflict(id: RepositoryId, object: &[u8]) -> Vec<u8> {
    of_link(CONFLICT, id, object)
}

/// All conflicts of a link.
pub fn conflicts(id: RepositoryId) -> Vec<u8> {
    of_link(CONFLICT, id, &[])
}

/// How much waits of a link.
pub fn count(id: RepositoryId) -> Vec<u8> {
    of_link(COUNT, id, &[])
}

/// What cannot be exported of a link.
pub fn skipped(id: RepositoryId) -> Vec<u8> {
    of_link(SKIPPED, id, &[])
}

/// Link and number of a key of the queue.
pub fn parse_item(key: &[u8]) -> FsResult<(RepositoryId, u64)> {
    sized(key, 17, "an export")?;
    let id = RepositoryId(u64::from_be_bytes(array(key, 1, "an export")?));
    Ok((id, u64::from_be_bytes(array(key, 9, "an export")?)))
}

/// The file of a key that has only that: where it, or what is below it, waits.
pub fn parse_file(key: &[u8]) -> FsResult<Fid> {
    sized(key, 17, "a file to export")?;
    Ok(Fid::from_bytes(array(key, 1, "a file to export")?))
}

/// Link and object of a key that has only those.
pub fn parse_object(key: &[u8]) -> FsResult<(RepositoryId, Vec<u8>)> {
    let id = RepositoryId(u64::from_be_bytes(array(key, 1, "an exported object")?));
    match &key[9..] {
        [] => Err(corrupt("an exported object", key)),
        object => Ok((id, object.to_vec())),
    }
}

/// File, link and object of a further name.
pub fn parse_further(key: &[u8]) -> FsResult<(Fid, RepositoryId, Vec<u8>)> {
    let fid = Fid::from_bytes(array(key, 1, "a further name")?);
    let id = RepositoryId(u64::from_be_bytes(array(key, 17, "a further name")?));
    match &key[25..] {
        [] => Err(corrupt("a further name", key)),
        object => Ok((fid, id, object.to_vec())),
    }
}

/// The link of a count, or of what is skipped.
pub fn parse_count(key: &[u8]) -> FsResult<RepositoryId> {
    sized(key, 9, "a count of exports")?;
    Ok(RepositoryId(u64::from_be_bytes(array(key, 1, "a count of exports")?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_of_exports_are_reversible(
            id in any::<u64>(), number in any::<u64>(), oid in 1u32..100,
            object in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            let (id, fid) = (RepositoryId(id), Fid { seq: Fid::SEQ_FIRST, oid, ver: 0 });
            prop_assert_eq!(parse_item(&item(id, number)).expect("own key"), (id, number));
            prop_assert!(item(id, number).starts_with(&queue(id)));
            for key in [waiting(fid), tree(fid)] {
                prop_assert_eq!(parse_file(&key).expect("own key"), fid);
            }
            for key in [deletion(id, &object), further_object(id, &object), conflict(id, &object)] {
                prop_assert_eq!(parse_object(&key).expect("own key"), (id, object.clone()));
            }
            let stored = super::object(id, &object);
            prop_assert!(stored.starts_with(&objects(id)));
            prop_assert_eq!(parse_object(&stored).expect("own key"), (id, object.clone()));
            let key = further(fid, id, &object);
            prop_assert!(key.starts_with(&further_of(fid)));
            prop_assert_eq!(parse_further(&key).expect("own key"), (fid, id, object));
            prop_assert_eq!(parse_count(&count(id)).expect("own key"), id);
            prop_assert_eq!(parse_count(&skipped(id)).expect("own key"), id);
        }

        #[test]
        fn foreign_keys_of_exports_never_panic(key in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = (parse_item(&key), parse_file(&key), parse_object(&key), parse_further(&key), parse_count(&key));
        }
    }
}
