//! Every key of every table. Integers are big-endian, so the order of bytes is the order of numbers.
//!
//! Tables of one file system (`fs/<id>/`):
//!
//! | table | key | value | asked for |
//! | --- | --- | --- | --- |
//! | `inodes` | fid (16) | `Inode` | attributes |
//! | `dentries` | parent fid (16), name | `Dentry` | lookup |
//! | `dirindex` | parent fid (16), cookie (8) | `IndexEntry` | listing in stable order |
//! | `parents` | fid (16), parent fid (16), name | empty | `..`, paths of a file |
//! | `xattrs` | fid (16), attribute name | raw bytes | extended attributes |
//! | `layouts` | fid (16) | `Layout` | layout of a regular file |
//! | `default_layouts` | fid (16) | `LayoutTemplate` | what new files in a directory get |
//! | `intents` | `t`, OST (2), number (8) | `TruncateIntent` | next truncates of an OST |
//! | | `d`, OST (2), number (8) | `DestroyIntent` | next destroys of an OST |
//! | | `f`, fid (16), OST (2), number (8) | empty | pending truncates of a file |
//! | `orphans` | fid (16) | empty | files without a name that were open when it went |
//! | `sessions` | session (16) | `SessionRecord` | clients |
//! | `replies` | session (16), slot (4) | `ReplyRecord` | exactly-once |
//! | `held` | `d`, fid (16) | session (16) | directories that a client has to itself |
//! | | `s`, session (16) | `HolderRecord` | sequence and log of a client that holds some |
//! | `repositories` | `r`, repository (8) | `RepositoryRecord` | links to data repositories |
//! | | `w`, session (16) | empty | sessions that are workers |
//! | | `f`, fid (16) | empty | files that are to be loaded in full |
//! | | `o`, fid (16) | empty | files with an HSM state that somebody has opened for writing |
//! | | `n`, fid (16) | `RulesRecord` | files that are never to be released, or never to be archived |
//! | `hsm` | fid (16) | `HsmRecord` | what a file has to do with a repository |
//! | `hsm_keys` | repository (8), key of an object | fid (16) | what was made of an object |
//! | `loads` | fid (16) | `LoadRecord` | what is loaded of a file that is not all there |
//! | `changelog` | `r`, number (8) | `ChangeRecord` | what happened, for those who follow it |
//! | | `u`, user (4) | `ChangeUser` | who does |
//! | `exports` | `q`, repository (8), number (8) | `WaitRecord` | what waits to be carried over, in order |
//! | | `f`, fid (16) | `WaitingRecord` | where a file waits |
//! | | `t`, fid (16) | `PlaceRecord` | where the tree below a directory waits |
//! | | `d`, repository (8), key of an object | u64 | number of its deletion in the queue |
//! | | `l`, fid (16), repository (8), key of an object | `FurtherRecord` | objects of further names of a file |
//! | | `k`, repository (8), key of an object | fid (16) | whose further name it is |
//! | | `g`, repository (8), key of an object | `KeyRecord` | what may be under it, while it is being stored or no file has it |
//! | | `c`, repository (8), key of an object | `ConflictRecord` | what both sides have changed |
//! | | `n`, repository (8) | u64 | rows of its queue |
//! | | `s`, repository (8) | `SkippedRecord` | what of it cannot be exported |
//! | `tasks` | `t`, task (8) | `TaskRecord` | tasks, in order |
//! | | `s`, task (8) | `TaskSpecRecord` | what was asked for |
//! | | `d`, task (8), number (8) | `TodoRecord` | what is left to be looked at |
//! | | `w`, task (8), fid (16) | `UnderWayRecord` | files that others are at work on for it |
//! | | `e`, task (8), number (8) | `FailureRecord` | lines of its report |
//! | | `i`, repository (8) | `ScopeRecord` | what the import of a link is limited to |
//! | | `a` | `AutoReleaseRecord` | when files are released by themselves |
//! | `config` | `next_sequence` `next_intent` `next_repository` `next_stamp` `next_export` `inodes` `format` `changes` `first_change` `change_users` `next_change_user` | u64 | counters |
//!
//! Tables of the cluster (`cluster/`): `config` (`next_fs_id` u64), `osts`: OST (2) -> `OstRecord`, `file_systems`:
//! id (4) -> `FileSystemRecord`, `ended_writers`: writer (8) -> `EndedWriterRecord`.

pub mod exports;
pub mod tasks;

use sateen_types::{Fid, FsCode, FsError, FsId, FsResult, Name, OstIndex, RepositoryId, SessionId};

/// Counter in `config`: first FID sequence that was never taken.
pub const NEXT_SEQUENCE: &[u8] = b"next_sequence";
/// Counter in `config`: number of the next intent.
pub const NEXT_INTENT: &[u8] = b"next_intent";
/// Counter in `config`: number of the next link to a repository.
pub const NEXT_REPOSITORY: &[u8] = b"next_repository";
/// Counter in `config`: number of the newest record of the changelog.
pub const CHANGES: &[u8] = b"changes";
/// Counter in `config`: number of the oldest record of the changelog that is kept.
pub const FIRST_CHANGE: &[u8] = b"first_change";
/// Counter in `config`: users of the changelog.
pub const CHANGE_USERS: &[u8] = b"change_users";
/// Counter in `config`: number of the next user of the changelog.
pub const NEXT_CHANGE_USER: &[u8] = b"next_change_user";
/// Prefix in `changelog` of its records.
pub const CHANGELOG_RECORDS: &[u8] = b"r";
/// Prefix in `changelog` of its users.
pub const CHANGELOG_USERS: &[u8] = b"u";
/// Counter in `config`: no stamp as high as this was given.
pub const NEXT_STAMP: &[u8] = b"next_stamp";
/// Counter in `config`: number of the next row in a queue of exports.
pub const NEXT_EXPORT: &[u8] = b"next_export";
/// Counter in `config`: inodes in use.
pub const INODES: &[u8] = b"inodes";
/// Counter in `config` of a file system: set when the root exists.
pub const FORMAT: &[u8] = b"format";
/// Counter in `config` of the cluster.
pub const NEXT_FS_ID: &[u8] = b"next_fs_id";

/// `inodes`, `layouts`, `default_layouts`, `orphans`, `hsm`, `loads`; prefix of `dentries`, `dirindex`, `parents`, `xattrs`.
pub fn fid(fid: Fid) -> Vec<u8> {
    fid.to_bytes().to_vec()
}

/// `dentries`.
pub fn dentry(parent: Fid, name: &Name) -> Vec<u8> {
    [&parent.to_bytes()[..], name.as_bytes()].concat()
}

/// `dirindex`.
pub fn dirindex(parent: Fid, cookie: u64) -> Vec<u8> {
    [&parent.to_bytes()[..], &cookie.to_be_bytes()].concat()
}

/// `parents`.
pub fn parent(fid: Fid, parent: Fid, name: &Name) -> Vec<u8> {
    [&fid.to_bytes()[..], &parent.to_bytes(), name.as_bytes()].concat()
}

/// `xattrs`.
pub fn xattr(fid: Fid, name: &[u8]) -> Vec<u8> {
    [&fid.to_bytes()[..], name].concat()
}

/// `changelog`, one record.
pub fn change(index: u64) -> Vec<u8> {
    [CHANGELOG_RECORDS, &index.to_be_bytes()].concat()
}

/// `changelog`, one user.
pub fn change_user(id: u32) -> Vec<u8> {
    [CHANGELOG_USERS, &id.to_be_bytes()].concat()
}

/// `held`, one directory.
pub fn held_dir(fid: Fid) -> Vec<u8> {
    [&b"d"[..], &fid.to_bytes()].concat()
}

/// `held`, one client.
pub fn holder(session: SessionId) -> Vec<u8> {
    [&b"s"[..], &session.0].concat()
}

/// The directory of a `held` key; `None` if it is one of a client.
pub fn parse_held_dir(key: &[u8]) -> FsResult<Option<Fid>> {
    sized(key, 17, "a held directory")?;
    Ok((key[0] == b'd').then_some(Fid::from_bytes(array(key, 1, "a held directory")?)))
}

/// What every key of a link starts with.
pub const REPOSITORY: &[u8] = b"r";
/// What every key of a worker's session starts with.
pub const WORKER: &[u8] = b"w";

/// What every key of a file that is to be loaded in full starts with.
pub const RESTORE: &[u8] = b"f";
/// What every key of a file that somebody has opened for writing starts with.
pub const OPENED: &[u8] = b"o";
/// What every key of a file of which its owner has decided something starts with.
pub const RULES: &[u8] = b"n";

/// `repositories`, one link.
pub fn repository(id: RepositoryId) -> Vec<u8> {
    [REPOSITORY, &id.0.to_be_bytes()].concat()
}

/// `repositories`, one worker.
pub fn worker(session: SessionId) -> Vec<u8> {
    [WORKER, &session.0].concat()
}

/// `repositories`, a file that is to be loaded in full.
pub fn restore(fid: Fid) -> Vec<u8> {
    [RESTORE, &fid.to_bytes()].concat()
}

/// The file of a `repositories` key that starts with [`RESTORE`].
pub fn parse_restore(key: &[u8]) -> FsResult<Fid> {
    sized(key, 17, "a file to load")?;
    Ok(Fid::from_bytes(array(key, 1, "a file to load")?))
}

/// `repositories`, a file that somebody has opened for writing.
pub fn opened(fid: Fid) -> Vec<u8> {
    [OPENED, &fid.to_bytes()].concat()
}

/// The file of a `repositories` key that starts with [`OPENED`].
pub fn parse_opened(key: &[u8]) -> FsResult<Fid> {
    sized(key, 17, "an opened file")?;
    Ok(Fid::from_bytes(array(key, 1, "an opened file")?))
}

/// `repositories`, what the owner of a file has decided.
pub fn rules(fid: Fid) -> Vec<u8> {
    [RULES, &fid.to_bytes()].concat()
}

/// The file of a `repositories` key that starts with [`RULES`].
pub fn parse_rules(key: &[u8]) -> FsResult<Fid> {
    sized(key, 17, "rules of a file")?;
    Ok(Fid::from_bytes(array(key, 1, "rules of a file")?))
}

/// `hsm_keys`, all objects of a link.
pub fn hsm_keys_of(id: RepositoryId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

/// `hsm_keys`, one object.
pub fn hsm_key(id: RepositoryId, object: &[u8]) -> Vec<u8> {
    [&id.0.to_be_bytes()[..], object].concat()
}

/// Link and object of a `hsm_keys` key.
pub fn parse_hsm_key(key: &[u8]) -> FsResult<(RepositoryId, &[u8])> {
    let id = u64::from_be_bytes(array(key, 0, "an object")?);
    match &key[8..] {
        [] => Err(corrupt("an object", key)),
        object => Ok((RepositoryId(id), object)),
    }
}

/// The link of a `repositories` key that starts with [`REPOSITORY`].
pub fn parse_repository(key: &[u8]) -> FsResult<RepositoryId> {
    sized(key, 9, "a repository")?;
    Ok(RepositoryId(u64::from_be_bytes(array(key, 1, "a repository")?)))
}

/// The session of a `repositories` key that starts with [`WORKER`].
pub fn parse_worker(key: &[u8]) -> FsResult<SessionId> {
    sized(key, 17, "a worker")?;
    Ok(SessionId(array(key, 1, "a worker")?))
}

/// `replies`.
pub fn reply(session: SessionId, slot: u32) -> Vec<u8> {
    [&session.0[..], &slot.to_be_bytes()].concat()
}

/// What an intent will do; the first byte of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntentKind {
    /// Cut objects of a file that shrank.
    Truncate,
    /// Remove objects of a file that is gone.
    Destroy,
}

impl IntentKind {
    fn tag(self) -> u8 {
        match self {
            IntentKind::Truncate => b't',
            IntentKind::Destroy => b'd',
        }
    }
}

/// Identity of an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntentId {
    /// What it does.
    pub kind: IntentKind,
    /// Where.
    pub ost: OstIndex,
    /// Rises in the file system.
    pub number: u64,
}

/// `intents`, all of one kind on one OST.
pub fn intents_of_ost(kind: IntentKind, ost: OstIndex) -> Vec<u8> {
    [&[kind.tag()][..], &ost.0.to_be_bytes()].concat()
}

/// `intents`, the intent itself.
pub fn intent(id: IntentId) -> Vec<u8> {
    [&intents_of_ost(id.kind, id.ost)[..], &id.number.to_be_bytes()].concat()
}

/// `intents`, all pending truncates of a file.
pub fn truncates_of_file(fid: Fid) -> Vec<u8> {
    [&b"f"[..], &fid.to_bytes()].concat()
}

/// `intents`, index row of one pending truncate of a file.
pub fn truncate_of_file(fid: Fid, ost: OstIndex, number: u64) -> Vec<u8> {
    [&truncates_of_file(fid)[..], &ost.0.to_be_bytes(), &number.to_be_bytes()].concat()
}

/// `osts`.
pub fn ost(index: OstIndex) -> Vec<u8> {
    index.0.to_be_bytes().to_vec()
}

/// `file_systems`.
pub fn fs(id: FsId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

/// `ended_writers`.
pub fn writer(writer: u64) -> Vec<u8> {
    writer.to_be_bytes().to_vec()
}

fn corrupt(what: &str, key: &[u8]) -> FsError {
    FsError::new(FsCode::Corrupt, format!("stored key of {what} is malformed: {key:02x?}"))
}

fn array<const N: usize>(key: &[u8], at: usize, what: &str) -> FsResult<[u8; N]> {
    key.get(at..).and_then(|k| k.first_chunk::<N>()).copied().ok_or_else(|| corrupt(what, key))
}

fn sized(key: &[u8], len: usize, what: &str) -> FsResult<()> {
    if key.len() == len { Ok(()) } else { Err(corrupt(what, key)) }
}

/// The FID a key of exactly one FID holds.
pub fn parse_fid(key: &[u8]) -> FsResult<Fid> {
    sized(key, 16, "a file")?;
    Ok(Fid::from_bytes(array(key, 0, "a file")?))
}

/// Parent and name of a `dentries` key.
pub fn parse_dentry(key: &[u8]) -> FsResult<(Fid, Name)> {
    let parent = Fid::from_bytes(array(key, 0, "an entry")?);
    Ok((parent, Name::parse(&key[16..]).map_err(|_| corrupt("an entry", key))?))
}

/// Parent and cookie of a `dirindex` key.
pub fn parse_dirindex(key: &[u8]) -> FsResult<(Fid, u64)> {
    sized(key, 24, "a directory index")?;
    let parent = Fid::from_bytes(array(key, 0, "a directory index")?);
    Ok((parent, u64::from_be_bytes(array(key, 16, "a directory index")?)))
}

/// File, parent and name of a `parents` key.
pub fn parse_parent(key: &[u8]) -> FsResult<(Fid, Fid, Name)> {
    let fid = Fid::from_bytes(array(key, 0, "a parent")?);
    let parent = Fid::from_bytes(array(key, 16, "a parent")?);
    Ok((fid, parent, Name::parse(&key[32..]).map_err(|_| corrupt("a parent", key))?))
}

/// Name of an `xattrs` key.
pub fn parse_xattr(key: &[u8]) -> FsResult<(Fid, &[u8])> {
    Ok((Fid::from_bytes(array(key, 0, "an attribute")?), &key[16..]))
}

/// The intent of a `t` or `d` key of `intents`.
pub fn parse_intent(key: &[u8]) -> FsResult<IntentId> {
    sized(key, 11, "an intent")?;
    let kind = match key[0] {
        b't' => IntentKind::Truncate,
        b'd' => IntentKind::Destroy,
        _ => return Err(corrupt("an intent", key)),
    };
    let ost = OstIndex(u16::from_be_bytes(array(key, 1, "an intent")?));
    Ok(IntentId { kind, ost, number: u64::from_be_bytes(array(key, 3, "an intent")?) })
}

/// The intent behind an `f` key of `intents`.
pub fn parse_truncate_of_file(key: &[u8]) -> FsResult<IntentId> {
    sized(key, 27, "a pending truncate")?;
    let ost = OstIndex(u16::from_be_bytes(array(key, 17, "a pending truncate")?));
    let number = u64::from_be_bytes(array(key, 19, "a pending truncate")?);
    Ok(IntentId { kind: IntentKind::Truncate, ost, number })
}

/// The session of a `sessions` key.
pub fn parse_session(key: &[u8]) -> FsResult<SessionId> {
    sized(key, 16, "a session")?;
    Ok(SessionId(array(key, 0, "a session")?))
}

/// The OST of an `osts` key.
pub fn parse_ost(key: &[u8]) -> FsResult<OstIndex> {
    sized(key, 2, "an OST")?;
    Ok(OstIndex(u16::from_be_bytes(array(key, 0, "an OST")?)))
}

/// The file system of a `file_systems` key.
pub fn parse_fs(key: &[u8]) -> FsResult<FsId> {
    sized(key, 4, "a file system")?;
    Ok(FsId(u32::from_be_bytes(array(key, 0, "a file system")?)))
}

/// The writer of an `ended_writers` key.
pub fn parse_writer(key: &[u8]) -> FsResult<u64> {
    sized(key, 8, "a writer")?;
    Ok(u64::from_be_bytes(array(key, 0, "a writer")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_are_reversible_and_sort_as_numbers(
            seq in Fid::SEQ_FIRST..0x2_ffff_ffff_u64, oid in 1u32..100, cookie in any::<u64>(), other in any::<u64>(),
            name in proptest::collection::vec(1u8..46, 1..20), ost_index in any::<u16>(), number in any::<u64>(),
        ) {
            let f = Fid { seq, oid, ver: 0 };
            let n = Name::parse(&name).expect("no slash, NUL or dots");
            prop_assert_eq!(parse_fid(&fid(f)).expect("own key"), f);
            prop_assert_eq!(parse_dentry(&dentry(f, &n)).expect("own key"), (f, n.clone()));
            prop_assert_eq!(parse_dirindex(&dirindex(f, cookie)).expect("own key"), (f, cookie));
            prop_assert_eq!(parse_parent(&parent(f, Fid::ROOT, &n)).expect("own key"), (f, Fid::ROOT, n));
            let id = IntentId { kind: IntentKind::Destroy, ost: OstIndex(ost_index), number };
            let cut = IntentId { kind: IntentKind::Truncate, ..id };
            let row = truncate_of_file(f, cut.ost, number);
            prop_assert_eq!(parse_truncate_of_file(&row).expect("own key"), cut);
            prop_assert_eq!(parse_intent(&intent(id)).expect("own key"), id);
            prop_assert_eq!(parse_writer(&writer(number)).expect("own key"), number);
            let id = RepositoryId(number);
            prop_assert_eq!(parse_repository(&repository(id)).expect("own key"), id);
            let object = hsm_key(id, &name);
            prop_assert_eq!(parse_hsm_key(&object).expect("own key"), (id, &name[..]));
            prop_assert_eq!(parse_opened(&opened(f)).expect("own key"), f);
            prop_assert_eq!(parse_rules(&rules(f)).expect("own key"), f);
            prop_assert_eq!(dirindex(f, cookie).cmp(&dirindex(f, other)), cookie.cmp(&other));
        }

        #[test]
        fn foreign_keys_never_panic(key in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (parse_fid(&key), parse_dentry(&key), parse_dirindex(&key), parse_parent(&key));
            let _ = (parse_xattr(&key), parse_intent(&key), parse_session(&key), parse_ost(&key), parse_fs(&key), parse_writer(&key));
            let _ = (parse_repository(&key), parse_worker(&key), parse_restore(&key), parse_hsm_key(&key), parse_opened(&key));
            let _ = parse_rules(&key);
        }
    }

    #[test]
    fn a_key_on_disk_looks_like_this() {
        let f = Fid { seq: 0x2_0000_0400, oid: 1, ver: 0 };
        let n = Name::parse(b"a").expect("valid");
        assert_eq!(dentry(f, &n), b"\0\0\0\x02\0\0\x04\0\0\0\0\x01\0\0\0\0a");
        let id = IntentId { kind: IntentKind::Truncate, ost: OstIndex(3), number: 9 };
        assert_eq!(intent(id), b"t\0\x03\0\0\0\0\0\0\0\x09");
    }
}
