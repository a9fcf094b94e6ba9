//! Answers kept for requests that are sent again.

use sateen_types::op::{Entry, MutationReply};
use sateen_types::{Attr, Layout};

use super::{read_type, write_type};
use crate::store::codec::{Reader, Record, Writer};

/// The last change of a slot that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyRecord {
    /// Its number in the slot.
    pub number: u64,
    /// What it was answered with.
    pub reply: MutationReply,
}

/// Flags of stored attributes.
const HAS_ACL: u8 = 1;
const HAS_DEFAULT_ACL: u8 = 2;
const HAS_CAPABILITIES: u8 = 4;

fn write_attr(out: &mut Writer, a: &Attr) {
    out.fid(a.fid);
    write_type(out, a.file_type);
    for n in [a.mode, a.uid, a.gid, a.nlink] {
        out.u32(n);
    }
    for n in [a.size, a.blocks, a.rdev, a.change] {
        out.u64(n);
    }
    for t in [a.atime, a.mtime, a.ctime, a.btime] {
        out.time(t);
    }
    let flags = [(a.has_acl, HAS_ACL), (a.has_default_acl, HAS_DEFAULT_ACL), (a.has_capabilities, HAS_CAPABILITIES)];
    out.u8(flags.into_iter().filter(|(set, _)| *set).fold(0, |all, (_, flag)| all | flag));
}

fn read_attr(input: &mut Reader<'_>) -> Option<Attr> {
    let (fid, file_type) = (input.fid()?, read_type(input)?);
    let (mode, uid, gid, nlink) = (input.u32()?, input.u32()?, input.u32()?, input.u32()?);
    let (size, blocks, rdev, change) = (input.u64()?, input.u64()?, input.u64()?, input.u64()?);
    let (atime, mtime, ctime, btime) = (input.time()?, input.time()?, input.time()?, input.time()?);
    let flags = if input.version() > 1 { input.u8()? } else { 0 };
    if flags & !(HAS_ACL | HAS_DEFAULT_ACL | HAS_CAPABILITIES) != 0 {
        return None;
    }
    Some(Attr {
        fid,
        file_type,
        mode,
        uid,
        gid,
        nlink,
        size,
        blocks,
        atime,
        mtime,
        ctime,
        btime,
        rdev,
        change,
        has_acl: flags & HAS_ACL != 0,
        has_default_acl: flags & HAS_DEFAULT_ACL != 0,
        has_capabilities: flags & HAS_CAPABILITIES != 0,
    })
}

impl Record for ReplyRecord {
    const WHAT: &'static str = "reply";
    /// 2: attributes end with flags.
    const VERSION: u8 = 2;

    fn write(&self, out: &mut Writer) {
        out.u64(self.number);
        match &self.reply {
            MutationReply::Done => out.u8(0),
            MutationReply::Entry(e) => {
                out.u8(1);
                write_attr(out, &e.attr);
                out.u8(u8::from(e.existed));
                out.u8(u8::from(e.layout.is_some()));
                if let Some(layout) = &e.layout {
                    layout.write(out);
                }
            }
            MutationReply::Attr(a) => {
                out.u8(2);
                write_attr(out, a);
            }
            MutationReply::Layout(l) => {
                out.u8(3);
                l.write(out);
            }
        }
    }

    fn read(input: &mut Reader<'_>) -> Option<ReplyRecord> {
        let number = input.u64()?;
        let reply = match input.u8()? {
            0 => MutationReply::Done,
            1 => {
                let (attr, existed) = (read_attr(input)?, input.bool()?);
                let layout = if input.bool()? { Some(Layout::read(input)?) } else { None };
                MutationReply::Entry(Entry { attr, layout, existed })
            }
            2 => MutationReply::Attr(read_attr(input)?),
            3 => MutationReply::Layout(Layout::read(input)?),
            _ => return None,
        };
        Some(ReplyRecord { number, reply })
    }
}
