//! Records and users of the changelog.

use sateen_types::changelog::{ChangeMask, ChangeRecord, ChangeType, ChangeUser, ChangedName};
use sateen_types::{Fid, Name};

use crate::store::codec::{Reader, Record, Writer};

fn write_name(out: &mut Writer, name: &ChangedName) {
    out.fid(name.parent);
    out.bytes(name.name.as_bytes());
}

fn read_name(input: &mut Reader<'_>) -> Option<ChangedName> {
    Some(ChangedName { parent: input.fid()?, name: Name::parse(input.bytes()?).ok()? })
}

fn read_fid(input: &mut Reader<'_>) -> Option<Fid> {
    input.fid()
}

/// The outer `None`: malformed.
#[allow(clippy::option_option, reason = "malformed, absent and there are three things")]
fn optional<T>(input: &mut Reader<'_>, read: impl Fn(&mut Reader<'_>) -> Option<T>) -> Option<Option<T>> {
    if input.bool()? { read(input).map(Some) } else { Some(None) }
}

impl Record for ChangeRecord {
    const WHAT: &'static str = "changelog record";

    fn write(&self, out: &mut Writer) {
        out.u64(self.index);
        out.u8(self.kind.number());
        out.time(self.time);
        out.u16(self.flags);
        out.u32(self.uid);
        out.u32(self.gid);
        out.u8(u8::from(self.target.is_some()));
        if let Some(target) = self.target {
            out.fid(target);
        }
        out.u8(u8::from(self.name.is_some()));
        if let Some(name) = &self.name {
            write_name(out, name);
        }
        out.u8(u8::from(self.source.is_some()));
        if let Some((fid, name)) = &self.source {
            out.fid(*fid);
            write_name(out, name);
        }
        out.u8(u8::from(self.xattr.is_some()));
        if let Some(xattr) = &self.xattr {
            out.bytes(xattr);
        }
    }

    fn read(input: &mut Reader<'_>) -> Option<ChangeRecord> {
        Some(ChangeRecord {
            index: input.u64()?,
            kind: ChangeType::from_number(input.u8()?.into())?,
            time: input.time()?,
            flags: input.u16()?,
            uid: input.u32()?,
            gid: input.u32()?,
            target: optional(input, read_fid)?,
            name: optional(input, read_name)?,
            source: optional(input, |input| Some((input.fid()?, read_name(input)?)))?,
            xattr: optional(input, |input| Some(input.bytes()?.to_vec()))?,
        })
    }
}

impl Record for ChangeUser {
    const WHAT: &'static str = "changelog user";

    fn write(&self, out: &mut Writer) {
        out.u32(self.id);
        out.bytes(self.name.as_bytes());
        out.u64(self.cleared);
        out.time(self.seen);
        out.u32(self.mask.0);
    }

    fn read(input: &mut Reader<'_>) -> Option<ChangeUser> {
        Some(ChangeUser {
            id: input.u32()?,
            name: String::from_utf8(input.bytes()?.to_vec()).ok()?,
            cleared: input.u64()?,
            seen: input.time()?,
            mask: ChangeMask::from_bits(input.u32()?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::Timestamp;

    #[test]
    fn records_and_users_survive_the_disk() {
        let name = |n: &[u8]| ChangedName { parent: Fid::ROOT, name: Name::parse(n).expect("a name") };
        let time = Timestamp { seconds: -5, nanos: 6 };
        let full = ChangeRecord {
            index: 7,
            kind: ChangeType::Rename,
            time,
            flags: 3,
            target: Some(Fid::ROOT),
            uid: 1,
            gid: 2,
            name: Some(name(b"new")),
            source: Some((Fid::ROOT, name(b"old"))),
            xattr: Some(b"user.a".to_vec()),
        };
        let bare = ChangeRecord { target: None, name: None, source: None, xattr: None, ..full.clone() };
        for record in [full, bare] {
            assert_eq!(ChangeRecord::from_bytes(&record.to_bytes()), Ok(record));
        }
        let user = ChangeUser { id: 1, name: "a".to_owned(), cleared: 3, seen: time, mask: ChangeMask::USUAL };
        assert_eq!(ChangeUser::from_bytes(&user.to_bytes()), Ok(user));
    }
}
