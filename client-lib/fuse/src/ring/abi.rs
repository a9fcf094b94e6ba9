//! What lies in the buffers that are shared with the kernel: `linux/fuse.h`, protocol 7.42 (Linux 6.14), in the machine's byte order.
//!
//! A request is three parts: `fuse_in_header`; the structure of its operation, of at most 128 bytes; and everything behind that
//! (names, data) as the payload. An answer is `fuse_out_header` in the place of the first, and all the rest in the payload.

use std::ffi::CStr;
use std::time::Duration;

use sateen_types::op::SetTime;
use sateen_types::{Attr, FileType, FsCode, FsError, FsResult, Timestamp};

/// `FUSE_URING_IN_OUT_HEADER_SZ`.
const HEAD_BYTES: usize = 128;
/// `FUSE_URING_OP_IN_OUT_SZ`.
const OPERATION_BYTES: usize = 128;
/// `struct fuse_uring_req_header`: both, and `struct fuse_uring_ent_in_out`.
pub const HEADERS_BYTES: usize = HEAD_BYTES + OPERATION_BYTES + 32;
/// Offset of `commit_id` in it.
const COMMIT_ID: usize = HEAD_BYTES + OPERATION_BYTES + 8;
/// Offset of `payload_sz` in it.
const PAYLOAD_SIZE: usize = HEAD_BYTES + OPERATION_BYTES + 16;
/// Preferred I/O size told to programs: one stripe.
const BLOCK_SIZE: u32 = 1 << 20;
/// `sizeof(struct fuse_entry_out)`.
const ENTRY_BYTES: usize = 128;
/// Bytes of `struct fuse_dirent` before the name.
const DIRENT_BYTES: usize = 24;

/// `enum fuse_opcode`.
#[allow(missing_docs, reason = "the kernel's names")]
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const CREATE: u32 = 35;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
}

/// Bits of `fuse_setattr_in.valid`.
mod valid {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const HANDLE: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(*bytes[at..].first_chunk().expect("within the headers, whose size is fixed"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(*bytes[at..].first_chunk().expect("within the headers, whose size is fixed"))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// `struct fuse_in_header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What is asked.
    pub opcode: u32,
    /// Number of the request.
    pub unique: u64,
    /// Inode it is about; of names, their directory.
    pub ino: u64,
    /// Who asks.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its thread; 0 if it is not visible here.
    pub pid: u32,
}

/// The headers of one entry of a ring.
#[derive(Debug)]
pub struct Headers<'a>(pub &'a [u8; HEADERS_BYTES]);

impl Headers<'_> {
    /// What is asked and by whom.
    pub fn head(&self) -> Head {
        Head {
            opcode: u32_at(self.0, 4),
            unique: u64_at(self.0, 8),
            ino: u64_at(self.0, 16),
            uid: u32_at(self.0, 24),
            gid: u32_at(self.0, 28),
            pid: u32_at(self.0, 32),
        }
    }

    /// A number of the operation's structure.
    pub fn u32(&self, at: usize) -> u32 {
        u32_at(self.0, HEAD_BYTES + at)
    }

    /// Likewise.
    pub fn u64(&self, at: usize) -> u64 {
        u64_at(self.0, HEAD_BYTES + at)
    }

    /// By which the answer is committed.
    pub fn commit_id(&self) -> u64 {
        u64_at(self.0, COMMIT_ID)
    }

    /// Bytes of the payload that are the request's.
    pub fn payload_len(&self) -> usize {
        u32_at(self.0, PAYLOAD_SIZE) as usize
    }

    /// `struct fuse_setattr_in`: what to change, and the open file it is asked through.
    pub fn set_attr(&self, fid: sateen_types::Fid) -> (sateen_types::op::SetAttr, Option<u64>) {
        let bits = self.u32(0);
        let given = |bit: u32, at: usize| (bits & bit != 0).then(|| self.u32(at));
        let time = |bit: u32, now: u32, seconds: usize, nanos: usize| match bits {
            bits if bits & now != 0 => Some(SetTime::Now),
            bits if bits & bit != 0 => {
                Some(SetTime::At(Timestamp { seconds: self.u64(seconds) as i64, nanos: self.u32(nanos) }))
            }
            _ => None,
        };
        let change = sateen_types::op::SetAttr {
            fid,
            mode: given(valid::MODE, 68).map(|mode| mode & 0o7777),
            uid: given(valid::UID, 76),
            gid: given(valid::GID, 80),
            size: (bits & valid::SIZE != 0).then(|| self.u64(16)),
            atime: time(valid::ATIME, valid::ATIME_NOW, 32, 56),
            mtime: time(valid::MTIME, valid::MTIME_NOW, 40, 60),
            via_open_file: false,
        };
        (change, (bits & valid::HANDLE != 0).then(|| self.u64(8)))
    }
}

/// Puts the head of an answer into the headers: of error `errno` (0: none), with `payload` bytes behind it.
pub fn answer(headers: &mut [u8; HEADERS_BYTES], unique: u64, errno: i32, payload: usize) {
    put(headers, 0, &(16 + payload as u32).to_ne_bytes());
    put(headers, 4, &(-errno).to_ne_bytes());
    put(headers, 8, &unique.to_ne_bytes());
    put(headers, PAYLOAD_SIZE, &(payload as u32).to_ne_bytes());
}

/// The next of the names in a payload, each of which ends with a NUL.
pub fn next_name<'a>(payload: &mut &'a [u8]) -> FsResult<&'a [u8]> {
    let name = CStr::from_bytes_until_nul(payload)
        .map_err(|_| FsError::new(FsCode::Invalid, "a name of the kernel has no end"))?
        .to_bytes();
    *payload = &payload[name.len() + 1..];
    Ok(name)
}

/// The kernel's structures in answers, one behind the other.
#[derive(Debug, Default)]
pub struct Reply(Vec<u8>);

impl Reply {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A number.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Reply {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// A number.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Reply {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn zeros(mut self, bytes: usize) -> Reply {
        self.0.resize(self.0.len() + bytes, 0);
        self
    }

    /// `struct fuse_attr` of inode `ino`.
    fn attr(self, ino: u64, a: &Attr) -> Reply {
        self.u64(ino)
            .u64(a.size)
            .u64(a.blocks)
            .u64(a.atime.seconds as u64)
            .u64(a.mtime.seconds as u64)
            .u64(a.ctime.seconds as u64)
            .u32(a.atime.nanos)
            .u32(a.mtime.nanos)
            .u32(a.ctime.nanos)
            .u32(type_bits(a.file_type) | a.mode & 0o7777)
            .u32(a.nlink)
            .u32(a.uid)
            .u32(a.gid)
            .u32(a.rdev as u32)
            .u32(BLOCK_SIZE)
            .u32(0)
    }

    /// `struct fuse_entry_out`.
    #[must_use]
    pub fn entry(self, ino: u64, attr: &Attr, names_for: Duration, attrs_for: Duration) -> Reply {
        self.u64(ino)
            .u64(0)
            .u64(names_for.as_secs())
            .u64(attrs_for.as_secs())
            .u32(names_for.subsec_nanos())
            .u32(attrs_for.subsec_nanos())
            .attr(ino, attr)
    }

    /// `struct fuse_attr_out`.
    #[must_use]
    pub fn attributes(self, ino: u64, attr: &Attr, attrs_for: Duration) -> Reply {
        self.u64(attrs_for.as_secs()).u32(attrs_for.subsec_nanos()).u32(0).attr(ino, attr)
    }

    /// `struct fuse_open_out`.
    #[must_use]
    pub fn opened(self, handle: u64, flags: u32) -> Reply {
        self.u64(handle).u32(flags).u32(0)
    }

    /// `struct fuse_statfs_out`: blocks of `unit` bytes, all, free, and free for users; inodes, and how many are free.
    #[must_use]
    pub fn statfs(self, [blocks, free, available, inodes, inodes_free]: [u64; 5], unit: u32, name_max: u32) -> Reply {
        let counts = self.u64(blocks).u64(free).u64(available).u64(inodes).u64(inodes_free);
        counts.u32(unit).u32(name_max).u32(unit).zeros(28)
    }
}

/// Entries of a directory, packed into what the kernel gave room for.
#[derive(Debug)]
pub struct Listing<'a> {
    room: &'a mut [u8],
    used: usize,
}

impl<'a> Listing<'a> {
    /// None yet.
    pub fn new(room: &'a mut [u8]) -> Listing<'a> {
        Listing { room, used: 0 }
    }

    /// Bytes of all entries.
    pub fn len(&self) -> usize {
        self.used
    }

    /// One more; false if it does not fit. With `attributes`, as READDIRPLUS has them: nothing is looked up if they are `None`.
    pub fn add(
        &mut self,
        (ino, position, file_type, name): (u64, u64, FileType, &[u8]),
        attributes: Option<Option<(&Attr, Duration)>>,
    ) -> bool {
        let plus = attributes.map(|given| match given {
            Some((attr, valid)) => Reply::default().entry(ino, attr, valid, valid),
            None => Reply::default().zeros(ENTRY_BYTES),
        });
        let plus = plus.as_ref().map_or(&[][..], Reply::bytes);
        let len = plus.len() + (DIRENT_BYTES + name.len()).next_multiple_of(8);
        let Some(room) = self.room.get_mut(self.used..self.used + len) else { return false };
        room.fill(0);
        put(room, 0, plus);
        let entry = Reply::default().u64(ino).u64(position).u32(name.len() as u32).u32(type_bits(file_type) >> 12);
        put(room, plus.len(), entry.bytes());
        put(room, plus.len() + DIRENT_BYTES, name);
        self.used += len;
        true
    }
}

/// The bits of `st_mode` that tell the kind of file.
fn type_bits(file_type: FileType) -> u32 {
    match file_type {
        FileType::Regular => libc::S_IFREG,
        FileType::Directory => libc::S_IFDIR,
        FileType::Symlink => libc::S_IFLNK,
        FileType::Fifo => libc::S_IFIFO,
        FileType::Socket => libc::S_IFSOCK,
        FileType::CharDevice => libc::S_IFCHR,
        FileType::BlockDevice => libc::S_IFBLK,
    }
}
