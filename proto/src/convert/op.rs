//! Changes of a namespace and their answers.

use sateen_types::limits::{FILE_SIZE_MAX, PATH_BYTES_MAX, READ_DONE_MAX, XATTR_VALUE_BYTES_MAX};
use sateen_types::op::{
    Access, Create, DirEntry, Entry, Mutation, MutationReply, ReadDone, RenameMode, SetAttr, SetTime, WriteDone,
    XattrMode,
};
use sateen_types::{Fid, FileType, FsCode, FsError, FsResult, Name, Timestamp, XattrName};

use super::attr::{file_type, mode, new_mode};
use super::{bad, fid, required};
use crate::mds::read_done::Time as ReadTime;
use crate::mds::{self, execute_reply::Result as WireResult, execute_request::Op};

fn size(n: u64) -> FsResult<u64> {
    if n <= FILE_SIZE_MAX {
        Ok(n)
    } else {
        Err(FsError::new(FsCode::FileTooBig, format!("size {n} is above the largest file, {FILE_SIZE_MAX}")))
    }
}

impl From<SetTime> for mds::SetTime {
    fn from(t: SetTime) -> mds::SetTime {
        let to = match t {
            SetTime::At(at) => mds::set_time::To::At(at.into()),
            SetTime::Now => mds::set_time::To::Now(true),
        };
        mds::SetTime { to: Some(to) }
    }
}

impl TryFrom<mds::SetTime> for SetTime {
    type Error = FsError;
    fn try_from(w: mds::SetTime) -> FsResult<SetTime> {
        match required(w.to, "time")? {
            mds::set_time::To::At(at) => Ok(SetTime::At(at.try_into()?)),
            mds::set_time::To::Now(_) => Ok(SetTime::Now),
        }
    }
}

impl From<Mutation> for Op {
    fn from(m: Mutation) -> Op {
        let bytes = |n: &Name| n.as_bytes().to_vec();
        match m {
            Mutation::Create(c) => Op::Create(mds::Create {
                parent: Some(c.parent.into()),
                name: bytes(&c.name),
                mode: c.mode.mode,
                exclusive: c.exclusive,
                open: c.open.is_some(),
                layout: c.layout.as_ref().map(Into::into),
                read: c.open.is_some_and(|a| a.read),
                write: c.open.is_some_and(|a| a.write),
                masked: c.mode.masked,
            }),
            Mutation::Mkdir { parent, name, mode } => Op::Mkdir(mds::Mkdir {
                parent: Some(parent.into()),
                name: bytes(&name),
                mode: mode.mode,
                masked: mode.masked,
            }),
            Mutation::Mknod { parent, name, mode, file_type, rdev } => Op::Mknod(mds::Mknod {
                parent: Some(parent.into()),
                name: bytes(&name),
                mode: mode.mode,
                masked: mode.masked,
                r#type: mds::FileType::from(file_type).into(),
                rdev,
            }),
            Mutation::Symlink { parent, name, target } => {
                Op::Symlink(mds::Symlink { parent: Some(parent.into()), name: bytes(&name), target })
            }
            Mutation::Link { fid, parent, name } => {
                Op::Link(mds::Link { fid: Some(fid.into()), parent: Some(parent.into()), name: bytes(&name) })
            }
            Mutation::Unlink { parent, name } => {
                Op::Unlink(mds::Unlink { parent: Some(parent.into()), name: bytes(&name) })
            }
            Mutation::Rmdir { parent, name } => {
                Op::Rmdir(mds::Rmdir { parent: Some(parent.into()), name: bytes(&name) })
            }
            Mutation::Rename { parent, name, new_parent, new_name, mode } => Op::Rename(mds::Rename {
                parent: Some(parent.into()),
                name: bytes(&name),
                new_parent: Some(new_parent.into()),
                new_name: bytes(&new_name),
                no_replace: mode == RenameMode::NoReplace,
                exchange: mode == RenameMode::Exchange,
            }),
            Mutation::SetAttr(s) => Op::SetAttr(mds::SetAttr {
                fid: Some(s.fid.into()),
                mode: s.mode,
                uid: s.uid,
                gid: s.gid,
                size: s.size,
                atime: s.atime.map(Into::into),
                mtime: s.mtime.map(Into::into),
                via_open_file: s.via_open_file,
            }),
            Mutation::SetXattr { fid, name, value, mode } => Op::SetXattr(mds::SetXattr {
                fid: Some(fid.into()),
                name: name.as_bytes().to_vec(),
                value,
                create: mode == XattrMode::Create,
                replace: mode == XattrMode::Replace,
            }),
            Mutation::RemoveXattr { fid, name } => {
                Op::RemoveXattr(mds::RemoveXattr { fid: Some(fid.into()), name: name.as_bytes().to_vec() })
            }
            Mutation::Instantiate { fid, offset, length } => {
                Op::Instantiate(mds::Instantiate { fid: Some(fid.into()), offset, length })
            }
            Mutation::SetLayout { fid, layout } => {
                Op::SetLayout(mds::SetLayout { fid: Some(fid.into()), layout: Some((&layout).into()) })
            }
            Mutation::SetDefaultLayout { fid, layout } => Op::SetDefaultLayout(mds::SetDefaultLayout {
                fid: Some(fid.into()),
                layout: layout.as_ref().map(Into::into),
            }),
            Mutation::WriteDone(w) => Op::WriteDone(mds::WriteDone {
                fid: Some(w.fid.into()),
                end: w.end,
                mtime: w.mtime.map(Into::into),
                allocated_delta: w.allocated_delta,
                clear_suid: w.clear_suid,
            }),
            Mutation::ReadDone(r) => {
                let time = |(fid, at): (Fid, Timestamp)| ReadTime { fid: Some(fid.into()), at: Some(at.into()) };
                Op::ReadDone(mds::ReadDone { times: r.times.into_iter().map(time).collect() })
            }
        }
    }
}

impl TryFrom<Op> for Mutation {
    type Error = FsError;
    fn try_from(op: Op) -> FsResult<Mutation> {
        let parent = |f| fid(f, "parent");
        Ok(match op {
            Op::Create(c) => Mutation::Create(Create {
                parent: parent(c.parent)?,
                name: Name::parse(&c.name)?,
                mode: new_mode(c.mode, c.masked)?,
                exclusive: c.exclusive,
                open: c.open.then_some(Access { read: c.read, write: c.write, exec: false }),
                layout: c.layout.map(TryInto::try_into).transpose()?,
            }),
            Op::Mkdir(m) => Mutation::Mkdir {
                parent: parent(m.parent)?,
                name: Name::parse(&m.name)?,
                mode: new_mode(m.mode, m.masked)?,
            },
            Op::Mknod(m) => {
                let file_type = file_type(m.r#type)?;
                if matches!(file_type, FileType::Directory | FileType::Symlink) {
                    return Err(bad("type", format_args!("mknod does not make a {file_type:?}")));
                }
                Mutation::Mknod {
                    parent: parent(m.parent)?,
                    name: Name::parse(&m.name)?,
                    mode: new_mode(m.mode, m.masked)?,
                    file_type,
                    rdev: m.rdev,
                }
            }
            Op::Symlink(s) => {
                if s.target.is_empty() || s.target.contains(&0) {
                    return Err(FsError::new(FsCode::NotFound, "the target of a symbolic link is empty or has a NUL"));
                }
                if s.target.len() >= PATH_BYTES_MAX {
                    return Err(FsError::new(
                        FsCode::NameTooLong,
                        format!("the target has {} bytes, at most {} are allowed", s.target.len(), PATH_BYTES_MAX - 1),
                    ));
                }
                Mutation::Symlink { parent: parent(s.parent)?, name: Name::parse(&s.name)?, target: s.target }
            }
            Op::Link(l) => {
                Mutation::Link { fid: fid(l.fid, "fid")?, parent: parent(l.parent)?, name: Name::parse(&l.name)? }
            }
            Op::Unlink(u) => Mutation::Unlink { parent: parent(u.parent)?, name: Name::parse(&u.name)? },
            Op::Rmdir(r) => Mutation::Rmdir { parent: parent(r.parent)?, name: Name::parse(&r.name)? },
            Op::Rename(r) => Mutation::Rename {
                parent: parent(r.parent)?,
                name: Name::parse(&r.name)?,
                new_parent: fid(r.new_parent, "new_parent")?,
                new_name: Name::parse(&r.new_name)?,
                mode: match (r.no_replace, r.exchange) {
                    (false, false) => RenameMode::Replace,
                    (true, false) => RenameMode::NoReplace,
                    (false, true) => RenameMode::Exchange,
                    (true, true) => return Err(bad("rename", "no_replace and exchange exclude each other")),
                },
            },
            Op::SetAttr(s) => Mutation::SetAttr(SetAttr {
                fid: fid(s.fid, "fid")?,
                mode: s.mode.map(mode).transpose()?,
                uid: s.uid,
                gid: s.gid,
                size: s.size.map(size).transpose()?,
                atime: s.atime.map(TryInto::try_into).transpose()?,
                mtime: s.mtime.map(TryInto::try_into).transpose()?,
                via_open_file: s.via_open_file,
            }),
            Op::SetXattr(s) => {
                if s.value.len() > XATTR_VALUE_BYTES_MAX {
                    return Err(FsError::new(
                        FsCode::TooBig,
                        format!(
                            "attribute value has {} bytes, at most {XATTR_VALUE_BYTES_MAX} are allowed",
                            s.value.len()
                        ),
                    ));
                }
                Mutation::SetXattr {
                    fid: fid(s.fid, "fid")?,
                    name: XattrName::parse(&s.name)?,
                    value: s.value,
                    mode: match (s.create, s.replace) {
                        (false, false) => XattrMode::Set,
                        (true, false) => XattrMode::Create,
                        (false, true) => XattrMode::Replace,
                        (true, true) => return Err(bad("set_xattr", "create and replace exclude each other")),
                    },
                }
            }
            Op::RemoveXattr(r) => Mutation::RemoveXattr { fid: fid(r.fid, "fid")?, name: XattrName::parse(&r.name)? },
            Op::Instantiate(i) => {
                let (offset, length) = super::bulk::range(i.offset, i.length)?;
                Mutation::Instantiate { fid: fid(i.fid, "fid")?, offset, length }
            }
            Op::SetLayout(s) => {
                Mutation::SetLayout { fid: fid(s.fid, "fid")?, layout: required(s.layout, "layout")?.try_into()? }
            }
            Op::SetDefaultLayout(s) => Mutation::SetDefaultLayout {
                fid: fid(s.fid, "fid")?,
                layout: s.layout.map(TryInto::try_into).transpose()?,
            },
            Op::WriteDone(w) => Mutation::WriteDone(WriteDone {
                fid: fid(w.fid, "fid")?,
                end: size(w.end)?,
                mtime: w.mtime.map(TryInto::try_into).transpose()?,
                allocated_delta: w.allocated_delta,
                clear_suid: w.clear_suid,
            }),
            Op::ReadDone(r) => {
                if r.times.len() > READ_DONE_MAX {
                    return Err(bad("times", format_args!("{}, at most {READ_DONE_MAX}", r.times.len())));
                }
                let time = |t: ReadTime| Ok((fid(t.fid, "fid")?, required(t.at, "at")?.try_into()?));
                Mutation::ReadDone(ReadDone { times: r.times.into_iter().map(time).collect::<FsResult<_>>()? })
            }
        })
    }
}

impl From<&Entry> for mds::EntryReply {
    fn from(e: &Entry) -> mds::EntryReply {
        mds::EntryReply {
            attr: Some((&e.attr).into()),
            layout: e.layout.as_ref().map(Into::into),
            existed: e.existed,
            in_use: false,
            cookie: 0,
        }
    }
}

impl TryFrom<mds::EntryReply> for Entry {
    type Error = FsError;
    fn try_from(w: mds::EntryReply) -> FsResult<Entry> {
        Ok(Entry {
            attr: required(w.attr, "attr")?.try_into()?,
            layout: w.layout.map(TryInto::try_into).transpose()?,
            existed: w.existed,
        })
    }
}

impl From<&MutationReply> for mds::ExecuteReply {
    fn from(r: &MutationReply) -> mds::ExecuteReply {
        let result = match r {
            MutationReply::Entry(e) => WireResult::Entry(e.into()),
            MutationReply::Attr(a) => WireResult::Attr(mds::AttrReply { attr: Some(a.into()), in_use: false }),
            MutationReply::Layout(l) => WireResult::Layout(mds::LayoutReply { layout: Some(l.into()) }),
            MutationReply::Done => WireResult::Done(mds::Done {}),
        };
        mds::ExecuteReply { result: Some(result), grant: None, held: None, remote: None }
    }
}

impl TryFrom<mds::ExecuteReply> for MutationReply {
    type Error = FsError;
    fn try_from(w: mds::ExecuteReply) -> FsResult<MutationReply> {
        Ok(match required(w.result, "result")? {
            WireResult::Entry(e) => MutationReply::Entry(e.try_into()?),
            WireResult::Attr(a) => MutationReply::Attr(required(a.attr, "attr")?.try_into()?),
            WireResult::Layout(l) => MutationReply::Layout(required(l.layout, "layout")?.try_into()?),
            WireResult::Done(mds::Done {}) => MutationReply::Done,
        })
    }
}

impl From<&DirEntry> for mds::DirEntry {
    fn from(e: &DirEntry) -> mds::DirEntry {
        mds::DirEntry {
            name: e.name.as_bytes().to_vec(),
            fid: Some(e.fid.into()),
            r#type: mds::FileType::from(e.file_type).into(),
            cookie: e.cookie,
            attr: e.attr.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<mds::DirEntry> for DirEntry {
    type Error = FsError;
    fn try_from(w: mds::DirEntry) -> FsResult<DirEntry> {
        Ok(DirEntry {
            name: Name::parse(&w.name)?,
            fid: fid(w.fid, "fid")?,
            file_type: file_type(w.r#type)?,
            cookie: w.cookie,
            attr: w.attr.map(TryInto::try_into).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::LayoutTemplate;
    use sateen_types::op::NewMode;

    fn name(s: &str) -> Name {
        Name::parse(s.as_bytes()).expect("valid")
    }

    /// One of each kind with unusual values in every field.
    fn samples() -> Vec<Mutation> {
        let f = Fid { seq: Fid::SEQ_FIRST, oid: 7, ver: 0 };
        let at = SetTime::At(Timestamp { seconds: -3, nanos: 5 });
        let mut set = SetAttr::new(f);
        (set.mode, set.uid, set.gid, set.size) = (Some(0o4755), Some(1), Some(2), Some(3));
        (set.atime, set.mtime, set.via_open_file) = (Some(at), Some(SetTime::Now), true);
        let xattr = XattrName::parse(b"user.x").expect("valid");
        vec![
            Mutation::Create(Create {
                parent: Fid::ROOT,
                name: name("a"),
                mode: NewMode::with_umask(0o666, 0o022),
                exclusive: true,
                open: Some(Access { read: true, write: true, exec: false }),
                layout: Some(LayoutTemplate::default()),
            }),
            Mutation::Mkdir { parent: Fid::ROOT, name: name("d"), mode: NewMode::with_umask(0o1777, 0o077) },
            Mutation::Mknod {
                parent: f,
                name: name("n"),
                mode: 0o600.into(),
                file_type: FileType::BlockDevice,
                rdev: 0x801,
            },
            Mutation::Symlink { parent: f, name: name("l"), target: b"../x".to_vec() },
            Mutation::Link { fid: f, parent: Fid::ROOT, name: name("h") },
            Mutation::Unlink { parent: f, name: name("u") },
            Mutation::Rmdir { parent: f, name: name("r") },
            Mutation::Rename {
                parent: f,
                name: name("o"),
                new_parent: Fid::ROOT,
                new_name: name("p"),
                mode: RenameMode::Exchange,
            },
            Mutation::SetAttr(set),
            Mutation::SetXattr { fid: f, name: xattr.clone(), value: vec![0, 1], mode: XattrMode::Replace },
            Mutation::RemoveXattr { fid: f, name: xattr },
            Mutation::Instantiate { fid: f, offset: 1, length: 2 },
            Mutation::SetLayout { fid: f, layout: LayoutTemplate::default() },
            Mutation::SetDefaultLayout { fid: f, layout: None },
            Mutation::WriteDone(WriteDone {
                fid: f,
                end: 9,
                mtime: Some(Timestamp { seconds: 1, nanos: 2 }),
                allocated_delta: -4096,
                clear_suid: true,
            }),
            Mutation::ReadDone(ReadDone { times: vec![(f, Timestamp { seconds: 1, nanos: 2 })] }),
        ]
    }

    #[test]
    fn every_mutation_survives_the_wire() {
        for m in samples() {
            assert_eq!(Mutation::try_from(Op::from(m.clone())).expect("valid"), m);
        }
    }

    #[test]
    fn values_that_break_a_rule_are_refused_with_the_right_code() {
        let parent = Some(Fid::ROOT.into());
        let cases = [
            (Op::Mkdir(mds::Mkdir { parent: None, name: b"a".to_vec(), ..Default::default() }), FsCode::Invalid),
            (Op::Mkdir(mds::Mkdir { parent, name: b"a/b".to_vec(), ..Default::default() }), FsCode::Invalid),
            (Op::Mkdir(mds::Mkdir { parent, name: vec![b'x'; 256], ..Default::default() }), FsCode::NameTooLong),
            (Op::Mkdir(mds::Mkdir { parent, name: b"a".to_vec(), mode: 0o10000, masked: 0 }), FsCode::Invalid),
            (Op::Mkdir(mds::Mkdir { parent, name: b"a".to_vec(), mode: 0, masked: 0o1000 }), FsCode::Invalid),
            (Op::Symlink(mds::Symlink { parent, name: b"a".to_vec(), target: vec![b'x'; 4096] }), FsCode::NameTooLong),
            (
                Op::SetXattr(mds::SetXattr {
                    fid: parent,
                    name: b"user.a".to_vec(),
                    value: vec![0; 65537],
                    ..Default::default()
                }),
                FsCode::TooBig,
            ),
            (Op::Instantiate(mds::Instantiate { fid: parent, offset: u64::MAX, length: 2 }), FsCode::Invalid),
            (Op::ReadDone(mds::ReadDone { times: vec![ReadTime::default(); READ_DONE_MAX + 1] }), FsCode::Invalid),
            (Op::SetAttr(mds::SetAttr { fid: parent, size: Some(1 << 63), ..Default::default() }), FsCode::FileTooBig),
        ];
        for (op, code) in cases {
            assert_eq!(Mutation::try_from(op.clone()).expect_err("refused").code, code, "{op:?}");
        }
    }
}
