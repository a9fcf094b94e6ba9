//! Both sides have changed what is under a key: the policy of the link decides, or nothing happens until somebody does.

use sateen_types::limits::NAME_BYTES_MAX;
use sateen_types::repository::{
    Conflict, ConflictPolicy, Found, ImportedObject, ObjectPath, RepositoryEvents, skip_code,
};
use sateen_types::{Fid, FileType, FsCode, FsError, FsResult, HsmFlags, Name, Timestamp};

use super::import::{Import, Imported};
use super::rows::delete_hsm;
use super::{agree, loads, put_hsm};
use crate::namespace::tree;
use crate::store::records::{Dentry, HsmRecord};

/// How many names are tried for a file that makes way.
const ASIDE_MAX: u32 = 100;

/// Something that was made here, or moved here, has the name of an object.
pub(super) fn stranger(
    import: &mut Import<'_>,
    place: (Fid, &Name),
    entry: &Dentry,
    path: &ObjectPath,
    object: &ImportedObject,
) -> FsResult<Imported> {
    const WHAT: &str = "something made here has the name";
    let further = agree::further_etag(import.tx, entry.fid, import.id, &object.key)?;
    if agree::waits(import.tx, entry.fid)?
        || further.is_some_and(|etag| etag == object.etag)
        || agree::is_ours_only(import.tx, import.id, &object.key, &object.etag)?
    {
        return Ok(Imported::Same);
    }
    if agree::is_ours_to_settle(import.tx, import.id, &object.key)? {
        // It is to be deleted.
        return Ok(Imported::Later);
    }
    match how(import, &object.key)? {
        ConflictPolicy::RepositoryWins => {
            let none = HsmRecord { etag: String::new(), ..import.row(object) };
            import.take(entry, &none, object)
        }
        ConflictPolicy::FilesystemWins if loads(import.tx, entry.fid)?.is_none() => {
            prefer(import, entry, object)?;
            Ok(Imported::Same)
        }
        ConflictPolicy::KeepBoth => keep_both(import, place, entry, path, object),
        _ => manual(import, entry.fid, object, String::new(), WHAT),
    }
}

/// A file was changed here, and its object is another one than it was made of.
pub(super) fn both_changed(
    import: &mut Import<'_>,
    place: (Fid, &Name),
    (entry, row): (&Dentry, &HsmRecord),
    path: &ObjectPath,
    object: &ImportedObject,
) -> FsResult<Imported> {
    const WHAT: &str = "the file was changed here, and its object as well";
    if agree::waits(import.tx, entry.fid)? {
        return Ok(Imported::Same);
    }
    match how(import, &object.key)? {
        ConflictPolicy::RepositoryWins => import.take(entry, row, object),
        // What is not loaded cannot be had any more: then there is nothing that could win.
        ConflictPolicy::FilesystemWins if loads(import.tx, entry.fid)?.is_none() => {
            prefer(import, entry, object)?;
            Ok(Imported::Same)
        }
        ConflictPolicy::KeepBoth => keep_both(import, place, entry, path, object),
        _ => manual(import, entry.fid, object, row.etag.clone(), WHAT),
    }
}

/// A file was changed here, and its object is gone. True: the file goes as well.
pub(super) fn changed_and_gone(import: &mut Import<'_>, fid: Fid, row: &HsmRecord) -> FsResult<bool> {
    if agree::waits(import.tx, fid)? {
        return Ok(false);
    }
    match how(import, &row.key)? {
        ConflictPolicy::RepositoryWins => return Ok(true),
        ConflictPolicy::FilesystemWins | ConflictPolicy::KeepBoth if loads(import.tx, fid)?.is_none() => {
            // As any file that was made here.
            delete_hsm(import.tx, fid)?;
            agree::end_conflict(import.tx, import.id, &row.key)?;
            agree::note_changed(import.tx, fid, import.id, import.inputs.now)?;
        }
        _ => {
            let since = import.inputs.now;
            let known_etag = row.etag.clone();
            let conflict = Conflict { key: row.key.clone(), fid: Some(fid), since, object: None, known_etag };
            agree::note_conflict(import.tx, import.id, conflict)?;
        }
    }
    Ok(false)
}

/// What was decided, or what the link says. Where nothing is carried over by itself nothing happens by itself.
fn how(import: &Import<'_>, key: &[u8]) -> FsResult<ConflictPolicy> {
    if let Some(decided) = agree::decided(import.tx, import.id, key)? {
        return Ok(decided);
    }
    let settings = &import.record.settings;
    let by_itself = settings.auto_import != RepositoryEvents::default();
    Ok(if by_itself { settings.conflict } else { ConflictPolicy::Manual })
}

fn manual(
    import: &mut Import<'_>,
    fid: Fid,
    object: &ImportedObject,
    known_etag: String,
    what: &str,
) -> FsResult<Imported> {
    let seen = Found { size: object.size, etag: object.etag.clone(), modified: object.modified };
    let (key, since) = (object.key.clone(), import.inputs.now);
    let conflict = Conflict { key, fid: Some(fid), since, object: Some(seen), known_etag };
    agree::note_conflict(import.tx, import.id, conflict)?;
    Ok(Imported::Skipped(skip_code::CONFLICT, what.to_owned()))
}

/// The object is known, and the file is what it is to become.
fn prefer(import: &mut Import<'_>, entry: &Dentry, object: &ImportedObject) -> FsResult<()> {
    let row = HsmRecord { flags: HsmFlags::EXISTS | HsmFlags::DIRTY, ..import.row(object) };
    put_hsm(import.tx, entry.fid, &row)?;
    agree::end_conflict(import.tx, import.id, &object.key)?;
    agree::note_changed(import.tx, entry.fid, import.id, import.inputs.now)
}

/// The file gets another name, and the object its old one.
fn keep_both(
    import: &mut Import<'_>,
    (parent, name): (Fid, &Name),
    entry: &Dentry,
    path: &ObjectPath,
    object: &ImportedObject,
) -> FsResult<Imported> {
    let (fid, now) = (entry.fid, import.inputs.now);
    let mut free = None;
    for n in 1..=ASIDE_MAX {
        let aside = aside(name, now, n)?;
        if tree::entry(import.tx, parent, &aside)?.is_none() {
            free = Some(aside);
            break;
        }
    }
    let Some(free) = free else {
        return manual(import, fid, object, String::new(), "no name is free for the file that was changed here");
    };
    import.names.remove(import.tx, (parent, name), entry, now)?;
    import.names.insert(import.tx, (parent, &free), (fid, entry.file_type), now)?;
    if entry.file_type == FileType::Directory || loads(import.tx, fid)?.is_none() {
        // As any file that was made here.
        delete_hsm(import.tx, fid)?;
    }
    agree::end_conflict(import.tx, import.id, &object.key)?;
    agree::note_changed(import.tx, fid, import.id, now)?;
    import.make(path, object)
}

/// `NAME.conflict-YYYYMMDDTHHMMSSZ`, from the second on with a number; a name that is too long is cut.
pub(super) fn aside(name: &Name, at: Timestamp, n: u32) -> FsResult<Name> {
    let second = jiff::Timestamp::from_second(at.seconds).map_err(|e| {
        FsError::new(FsCode::Internal, format!("{} s is no moment: {e}", at.seconds))
            .with_hint("set the clock of the MDS")
    })?;
    let mut end = format!(".conflict-{}", second.strftime("%Y%m%dT%H%M%SZ"));
    if n > 1 {
        end += &format!("-{n}");
    }
    let mut length = name.as_bytes().len().min(NAME_BYTES_MAX - end.len());
    if let Ok(text) = std::str::from_utf8(name.as_bytes()) {
        while !text.is_char_boundary(length) {
            length -= 1;
        }
    }
    Name::parse(&[&name.as_bytes()[..length], end.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_makes_way_has_the_time_in_its_name() {
        let name = |s: &str| Name::parse(s.as_bytes()).expect("valid");
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let shown = |n: &Name, seconds, k| aside(n, at(seconds), k).expect("valid").to_string();
        assert_eq!(shown(&name("f"), 0, 1), "f.conflict-19700101T000000Z");
        assert_eq!(shown(&name("f"), 951_827_696, 1), "f.conflict-20000229T123456Z");
        assert_eq!(shown(&name("f"), 1_795_305_599, 2), "f.conflict-20261121T235959Z-2");
        let long = shown(&name(&"ü".repeat(127)), 0, 1);
        assert!(long.len() <= NAME_BYTES_MAX && long.starts_with("üü"));
    }
}
