//! The changelog.

use sateen_types::changelog::{ChangeMask, ChangeRecord, ChangeType, ChangeUser, ChangedName, Changelog};
use sateen_types::limits::{CHANGELOG_NAME_MAX, CHANGELOG_PAGE_MAX, CHANGELOG_USERS_MAX};
use sateen_types::{FsError, FsResult, Name};

use super::{bad, fid, required};
use crate::mds;

/// Name of a user: may be empty.
pub fn changelog_name(name: String) -> FsResult<String> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if name.len() > CHANGELOG_NAME_MAX || !plain {
        let shown: String = name.chars().take(40).collect();
        return Err(bad("name", format_args!("{shown:?} is not a name"))
            .with_hint("use at most 15 letters, digits, '-' or '_'"));
    }
    Ok(name)
}

fn mask(bits: u32) -> FsResult<ChangeMask> {
    ChangeMask::from_bits(bits).ok_or_else(|| bad("mask", format_args!("{bits:#x} has bits that stand for nothing")))
}

/// What a user wants to be recorded; 0: the usual.
pub fn wanted_mask(bits: u32) -> FsResult<ChangeMask> {
    if bits == 0 { Ok(ChangeMask::USUAL) } else { mask(bits) }
}

/// How many records are asked for.
pub fn changelog_page(max: u32) -> FsResult<usize> {
    match max {
        0 => Ok(CHANGELOG_PAGE_MAX as usize),
        1..=CHANGELOG_PAGE_MAX => Ok(max as usize),
        _ => Err(bad("max", format_args!("{max} is above {CHANGELOG_PAGE_MAX}"))),
    }
}

impl From<&ChangeUser> for mds::ChangelogUser {
    fn from(u: &ChangeUser) -> mds::ChangelogUser {
        let (name, seen) = (u.name.clone(), Some(u.seen.into()));
        mds::ChangelogUser { id: u.id, name, cleared: u.cleared, seen, mask: u.mask.0 }
    }
}

impl TryFrom<mds::ChangelogUser> for ChangeUser {
    type Error = FsError;
    fn try_from(w: mds::ChangelogUser) -> FsResult<ChangeUser> {
        let (name, seen) = (changelog_name(w.name)?, required(w.seen, "seen")?.try_into()?);
        Ok(ChangeUser { id: w.id, name, cleared: w.cleared, seen, mask: mask(w.mask)? })
    }
}

impl From<&Changelog> for mds::UsersReply {
    fn from(c: &Changelog) -> mds::UsersReply {
        mds::UsersReply { index: c.index, first: c.first, users: c.users.iter().map(Into::into).collect() }
    }
}

impl TryFrom<mds::UsersReply> for Changelog {
    type Error = FsError;
    fn try_from(w: mds::UsersReply) -> FsResult<Changelog> {
        if w.users.len() > CHANGELOG_USERS_MAX {
            return Err(bad("users", format_args!("{}, at most {CHANGELOG_USERS_MAX}", w.users.len())));
        }
        let users = w.users.into_iter().map(TryInto::try_into).collect::<FsResult<_>>()?;
        Ok(Changelog { index: w.index, first: w.first, users })
    }
}

impl From<&ChangedName> for mds::ChangelogName {
    fn from(n: &ChangedName) -> mds::ChangelogName {
        mds::ChangelogName { parent: Some(n.parent.into()), name: n.name.as_bytes().to_vec() }
    }
}

impl TryFrom<mds::ChangelogName> for ChangedName {
    type Error = FsError;
    fn try_from(w: mds::ChangelogName) -> FsResult<ChangedName> {
        Ok(ChangedName { parent: fid(w.parent, "parent")?, name: Name::parse(&w.name)? })
    }
}

impl From<&ChangeRecord> for mds::ChangelogRecord {
    fn from(r: &ChangeRecord) -> mds::ChangelogRecord {
        mds::ChangelogRecord {
            index: r.index,
            r#type: r.kind.number().into(),
            time: Some(r.time.into()),
            flags: r.flags.into(),
            target: r.target.map(Into::into),
            uid: r.uid,
            gid: r.gid,
            name: r.name.as_ref().map(Into::into),
            source: r.source.as_ref().map(|(fid, _)| (*fid).into()),
            source_name: r.source.as_ref().map(|(_, name)| name.into()),
            xattr: r.xattr.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<mds::ChangelogRecord> for ChangeRecord {
    type Error = FsError;
    fn try_from(w: mds::ChangelogRecord) -> FsResult<ChangeRecord> {
        let kind = ChangeType::from_number(w.r#type);
        let flags = u16::try_from(w.flags).map_err(|_| bad("flags", format_args!("{:#x}", w.flags)))?;
        let source = match (w.source, w.source_name) {
            (None, None) => None,
            (source, name) => Some((fid(source, "source")?, required(name, "source_name")?.try_into()?)),
        };
        Ok(ChangeRecord {
            index: w.index,
            kind: kind.ok_or_else(|| bad("type", format_args!("{} is no kind of change", w.r#type)))?,
            time: required(w.time, "time")?.try_into()?,
            flags,
            target: w.target.map(|f| fid(Some(f), "target")).transpose()?,
            uid: w.uid,
            gid: w.gid,
            name: w.name.map(TryInto::try_into).transpose()?,
            source,
            xattr: (!w.xattr.is_empty()).then_some(w.xattr),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::{Fid, FsCode, Timestamp};

    #[test]
    fn records_and_users_survive_the_wire() {
        let name = |n: &[u8]| ChangedName { parent: Fid::ROOT, name: Name::parse(n).expect("a name") };
        let time = Timestamp { seconds: 5, nanos: 6 };
        let full = ChangeRecord {
            index: 7,
            kind: ChangeType::Rename,
            time,
            flags: ChangeRecord::LAST_NAME,
            target: Some(Fid::ROOT),
            uid: 1,
            gid: 2,
            name: Some(name(b"new")),
            source: Some((Fid::ROOT, name(b"old"))),
            xattr: Some(b"user.a".to_vec()),
        };
        let bare = ChangeRecord { target: None, name: None, source: None, xattr: None, ..full.clone() };
        for record in [full, bare] {
            assert_eq!(ChangeRecord::try_from(mds::ChangelogRecord::from(&record)), Ok(record));
        }
        let user = ChangeUser { id: 1, name: "a-b".to_owned(), cleared: 3, seen: time, mask: ChangeMask::USUAL };
        let log = Changelog { index: 9, first: 4, users: vec![user] };
        assert_eq!(Changelog::try_from(mds::UsersReply::from(&log)), Ok(log));
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        for bad in ["sixteen-letters-", "a b", "ä"] {
            assert_eq!(changelog_name(bad.to_owned()).expect_err(bad).code, FsCode::Invalid);
        }
        assert_eq!(wanted_mask(0), Ok(ChangeMask::USUAL));
        wanted_mask(1).expect_err("MARK is not recorded");
        changelog_page(CHANGELOG_PAGE_MAX + 1).expect_err("too many");
        let record = mds::ChangelogRecord { r#type: 10, time: Some(Default::default()), ..Default::default() };
        ChangeRecord::try_from(record).expect_err("OPEN is not recorded");
    }
}
