//! The kernel's structures, against its header: offsets and sizes are those of `linux/fuse.h`.

use std::time::Duration;

use sateen_types::op::SetTime;
use sateen_types::{Attr, Fid, FileType, Timestamp};

use super::abi::{HEADERS_BYTES, Headers, Listing, Reply, answer, next_name};
use super::count;
use super::slot::{Buffers, Mailbox, Slot};

const FILE: Fid = Fid { seq: 0x2_0000_0401, oid: 7, ver: 0 };

fn attr() -> Attr {
    let at = |seconds| Timestamp { seconds, nanos: 5 };
    Attr {
        fid: FILE,
        file_type: FileType::Regular,
        mode: 0o4755,
        uid: 10,
        gid: 11,
        nlink: 3,
        size: 1 << 40,
        blocks: 9,
        atime: at(-2),
        mtime: at(4),
        ctime: at(6),
        btime: at(0),
        rdev: 0,
        change: 1,
        has_acl: false,
        has_default_acl: false,
        has_capabilities: false,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(*bytes[at..].first_chunk().expect("long enough"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(*bytes[at..].first_chunk().expect("long enough"))
}

#[test]
fn answers_have_the_sizes_and_places_that_the_kernel_expects() {
    let (names, attrs) = (Duration::new(1, 2), Duration::new(3, 4));
    let entry = Reply::default().entry(77, &attr(), names, attrs);
    let bytes = entry.bytes();
    assert_eq!(bytes.len(), 128, "fuse_entry_out");
    assert_eq!([0, 8, 16, 24].map(|at| u64_at(bytes, at)), [77, 0, 1, 3]);
    assert_eq!([32, 36].map(|at| u32_at(bytes, at)), [2, 4]);
    let attr_out = &bytes[40..];
    assert_eq!([0, 8, 16].map(|at| u64_at(attr_out, at)), [77, 1 << 40, 9]);
    assert_eq!([24, 32, 40].map(|at| u64_at(attr_out, at) as i64), [-2, 4, 6]);
    assert_eq!([48, 52, 56].map(|at| u32_at(attr_out, at)), [5; 3]);
    assert_eq!([60, 64, 68, 72].map(|at| u32_at(attr_out, at)), [libc::S_IFREG | 0o4755, 3, 10, 11]);
    assert_eq!(Reply::default().attributes(77, &attr(), attrs).bytes().len(), 104, "fuse_attr_out");
    assert_eq!(entry.opened(1, 2).bytes().len(), 144, "of CREATE");
    assert_eq!(Reply::default().statfs([1, 2, 3, 4, 5], 4096, 255).bytes().len(), 80, "fuse_statfs_out");
}

#[test]
fn an_answer_of_an_error_is_negative_and_has_no_payload() {
    let mut headers = [0xff; HEADERS_BYTES];
    answer(&mut headers, 42, libc::ENOENT, 0);
    assert_eq!((u32_at(&headers, 0), u32_at(&headers, 4) as i32, u64_at(&headers, 8)), (16, -libc::ENOENT, 42));
    assert_eq!(u32_at(&headers, 128 + 128 + 16), 0, "payload_sz");
    answer(&mut headers, 43, 0, 128);
    assert_eq!((u32_at(&headers, 0), u32_at(&headers, 4), u32_at(&headers, 272)), (144, 0, 128));
}

#[test]
fn a_request_is_read_from_its_three_parts() {
    let mut headers = [0; HEADERS_BYTES];
    let mut put = |at: usize, value: &[u8]| headers[at..at + value.len()].copy_from_slice(value);
    put(4, &4u32.to_ne_bytes());
    put(8, &99u64.to_ne_bytes());
    put(16, &5u64.to_ne_bytes());
    put(24, &1000u32.to_ne_bytes());
    put(28, &1001u32.to_ne_bytes());
    put(32, &1234u32.to_ne_bytes());
    // SETATTR of mode, size through handle 8, atime to now, mtime to -3.000000009.
    put(128, &((1u32 << 0) | (1 << 3) | (1 << 4) | (1 << 7) | (1 << 5) | (1 << 6)).to_ne_bytes());
    put(128 + 8, &8u64.to_ne_bytes());
    put(128 + 16, &4096u64.to_ne_bytes());
    put(128 + 40, &(-3i64).to_ne_bytes());
    put(128 + 60, &9u32.to_ne_bytes());
    put(128 + 68, &(libc::S_IFREG | 0o640).to_ne_bytes());
    put(256 + 8, &99u64.to_ne_bytes());
    put(256 + 16, &6u32.to_ne_bytes());
    let headers = Headers(&headers);
    let head = headers.head();
    assert_eq!((head.opcode, head.unique, head.ino), (4, 99, 5));
    assert_eq!((head.uid, head.gid, head.pid), (1000, 1001, 1234));
    assert_eq!((headers.commit_id(), headers.payload_len()), (99, 6));
    let (change, handle) = headers.set_attr(FILE);
    assert_eq!(handle, Some(8));
    assert_eq!((change.mode, change.size, change.uid, change.gid), (Some(0o640), Some(4096), None, None));
    assert_eq!(change.atime, Some(SetTime::Now));
    assert_eq!(change.mtime, Some(SetTime::At(Timestamp { seconds: -3, nanos: 9 })));
}

#[test]
fn names_of_a_payload_end_with_a_nul() {
    let mut payload = &b"old\0new\0rest"[..];
    assert_eq!(next_name(&mut payload).expect("a name"), b"old");
    assert_eq!(next_name(&mut payload).expect("a name"), b"new");
    assert!(next_name(&mut payload).is_err(), "no end");
}

#[test]
fn entries_are_aligned_and_none_is_cut() {
    let mut room = vec![0xee; 100];
    let mut listing = Listing::new(&mut room);
    assert!(listing.add((5, 3, FileType::Directory, b"nine-char"), None));
    assert_eq!(listing.len(), 40, "24 and 9, to a multiple of 8");
    assert!(listing.add((6, 4, FileType::Regular, b"x"), None));
    assert!(!listing.add((7, 5, FileType::Regular, b"y"), Some(None)), "184 bytes do not fit");
    assert_eq!(listing.len(), 72);
    assert_eq!((u64_at(&room, 0), u64_at(&room, 8), u32_at(&room, 16), u32_at(&room, 20)), (5, 3, 9, 4));
    assert_eq!(&room[24..40], b"nine-char\0\0\0\0\0\0\0");
    let mut room = vec![0xee; 400];
    let mut listing = Listing::new(&mut room);
    let found = attr();
    assert!(listing.add((77, 3, FileType::Regular, b"f"), Some(Some((&found, Duration::from_secs(1))))));
    assert_eq!(listing.len(), 128 + 32);
    assert_eq!((u64_at(&room, 0), u64_at(&room, 128), &room[128 + 24..128 + 25]), (77, 77, &b"f"[..]));
}

#[test]
fn processors_are_counted_in_the_kernels_list_of_them() {
    assert_eq!(["0\n", "0-7\n", "0-3,8-15", "1,3"].map(count), [Some(1), Some(8), Some(12), Some(2)]);
    assert_eq!(["", "x", "3-1", "0-"].map(count), [None; 4]);
}

#[test]
fn a_request_whose_work_goes_away_is_answered_with_an_error() {
    let buffers = Buffers::new(1 << 20).expect("memory");
    let mailbox = Mailbox::new().expect("an event");
    // SAFETY: no kernel has the buffers.
    let slot = unsafe { Slot::new(buffers.clone(), mailbox.clone(), 3) };
    assert!(mailbox.take().is_empty());
    drop(slot);
    let answered = mailbox.take();
    assert_eq!(answered.iter().map(|a| a.entry).collect::<Vec<_>>(), [3]);
    // SAFETY: the slot of before is gone.
    let slot = unsafe { Slot::new(buffers, mailbox.clone(), 3) };
    assert_eq!(slot.headers().0[4..8], (-libc::EIO).to_ne_bytes(), "the answer that lies there");
    let answered = slot.answer_with(&[7; 16]);
    assert_eq!(answered.entry, 3);
    assert!(mailbox.take().is_empty(), "answered once");
}
