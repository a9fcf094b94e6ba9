//! Values of ours in fuser's types and back.

use std::time::SystemTime;

use fuser::{FileAttr, FopenFlags, INodeNo, TimeOrNow};
use sateen_types::op::{NewMode, SetTime};
use sateen_types::{Attr, FileType, Timestamp};

use crate::fs::{MountedFs, Opened};

/// Preferred I/O size told to programs: one stripe.
const BLOCK_SIZE: u32 = 1 << 20;

/// Attributes in the kernel's form, which is given them; what they say of extended attributes is remembered.
pub fn file_attr(fs: &MountedFs, a: &Attr) -> FileAttr {
    fs.xattr_hints.given(fs.ino(a.fid), a);
    FileAttr {
        ino: INodeNo(fs.ino(a.fid)),
        size: a.size,
        blocks: a.blocks,
        atime: a.atime.into(),
        mtime: a.mtime.into(),
        ctime: a.ctime.into(),
        crtime: a.btime.into(),
        kind: kind(a.file_type),
        perm: (a.mode & 0o7777) as u16,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev as u32,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// A file type in the kernel's form.
pub fn kind(t: FileType) -> fuser::FileType {
    match t {
        FileType::Regular => fuser::FileType::RegularFile,
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
    }
}

/// Permissions of something new, with the umask of whoever makes it.
pub fn new_mode(mode: u32, umask: u32) -> NewMode {
    NewMode::with_umask(mode & 0o7777, umask)
}

/// What the kernel may do with an open file.
pub fn open_flags(opened: Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
    flags.set(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES, opened.direct);
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags
}

/// A time to set.
pub fn set_time(t: TimeOrNow) -> SetTime {
    match t {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(at) => SetTime::At(time_from_kernel(at)),
    }
}

/// fuser 0.18 takes the nanoseconds of a time before 1970 as going backwards (-2 s + 0.5 s becomes -2.5 s); this gives
/// the kernel's seconds and nanoseconds back.
fn time_from_kernel(at: SystemTime) -> Timestamp {
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(_) => Timestamp::from(at),
        Err(before) => {
            let d = before.duration();
            Timestamp { seconds: 0i64.wrapping_sub_unsigned(d.as_secs()), nanos: d.subsec_nanos() }
        }
    }
}

/// Attributes of a listed entry about which only number and kind are known.
pub fn nameless(ino: u64, file_type: FileType) -> FileAttr {
    let never = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: never,
        mtime: never,
        ctime: never,
        crtime: never,
        kind: kind(file_type),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_before_1970_are_those_the_kernel_sent() {
        // What fuser makes of (-2 s, 500,000,000 ns), which is 1.5 s before 1970.
        let from_fuser = SystemTime::UNIX_EPOCH - Duration::new(2, 500_000_000);
        assert_eq!(time_from_kernel(from_fuser), Timestamp { seconds: -2, nanos: 500_000_000 });
        let first = SystemTime::UNIX_EPOCH - Duration::from_secs(1 << 63);
        assert_eq!(time_from_kernel(first), Timestamp { seconds: i64::MIN, nanos: 0 });
        let later = SystemTime::UNIX_EPOCH + Duration::new(5, 7);
        assert_eq!(time_from_kernel(later), Timestamp { seconds: 5, nanos: 7 });
    }
}
