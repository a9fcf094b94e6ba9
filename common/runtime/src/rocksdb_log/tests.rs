//! Logs as crashes, damage and other files leave them, and what is made of each.

use super::format::{BLOCK, HEADER, masked_crc};
use super::*;

fn fragment(kind: u8, body: &[u8]) -> Vec<u8> {
    [&masked_crc(kind, body)[..], &(body.len() as u16).to_le_bytes(), &[kind], body].concat()
}

/// A batch of one change.
fn batch(sequence: u64, body: &[u8]) -> Vec<u8> {
    [&sequence.to_le_bytes()[..], &1u32.to_le_bytes(), body].concat()
}

fn record(sequence: u64, body: &[u8]) -> Vec<u8> {
    fragment(1, &batch(sequence, body))
}

/// A record of three fragments that begins at the start of a block.
fn long_record(sequence: u64) -> Vec<u8> {
    let batch = batch(sequence, &vec![7; 2 * BLOCK]);
    let (first, rest) = batch.split_at(BLOCK - HEADER);
    let (middle, last) = rest.split_at(BLOCK - HEADER);
    [fragment(2, first), fragment(3, middle), fragment(4, last)].concat()
}

/// Records up to a block's end, with the filler behind them, and the next sequence number.
fn one_block() -> (Vec<u8>, u64) {
    let mut log = record(5, b"one");
    log.extend(record(6, &vec![7; BLOCK - log.len() - HEADER - 12 - 3]));
    log.extend([0; 3]);
    assert_eq!(log.len(), BLOCK);
    (log, 7)
}

/// What becomes of these logs, the oldest first.
fn treated(logs: &[&[u8]], treat: impl Fn(&Path) -> FsResult<u64>) -> (FsResult<u64>, Vec<Vec<u8>>) {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = |i: usize| dir.path().join(format!("{:06}.log", 8 + 2 * i));
    for (i, log) in logs.iter().enumerate() {
        std::fs::write(path(i), log).expect("written");
    }
    let result = treat(dir.path());
    (result, (0..logs.len()).map(|i| std::fs::read(path(i)).expect("read")).collect())
}

fn torn_tail(log: &[u8]) -> (FsResult<u64>, Vec<u8>) {
    let (result, mut logs) = treated(&[log], cut_torn_tail);
    (result, logs.remove(0))
}

fn garbage_cut(log: &[u8], durable: u64) -> (FsResult<u64>, Vec<u8>) {
    let (result, mut logs) = treated(&[log], |dir| cut_garbage(dir, durable));
    (result, logs.remove(0))
}

/// `log` is refused and left as it is.
fn refused(log: &[u8]) {
    let (result, after) = torn_tail(log);
    let error = result.expect_err("whole batches would be lost");
    assert!(error.code == FsCode::Corrupt && error.hint.is_none(), "{error:?}");
    assert!(after == log, "nothing was changed");
}

#[test]
fn sound_logs_stay_as_they_are_across_blocks() {
    let (block, next) = one_block();
    for log in [Vec::new(), block.clone(), [block.clone(), record(next, b"two")].concat(), long_record(3)] {
        for (result, after) in [torn_tail(&log), garbage_cut(&log, 99)] {
            assert_eq!(result, Ok(0));
            assert!(after == log);
        }
    }
}

#[test]
fn a_tail_that_is_torn_anywhere_goes() {
    let (block, next) = one_block();
    for sound in [block, record(6, b"short")] {
        let torn = record(next, b"never answered");
        for end in 1..torn.len() {
            for behind in [&[][..], &[0; 300], &[0xff; 300], &fragment(5, b"recycled")] {
                let log = [&sound[..], &torn[..end], behind].concat();
                assert_eq!(torn_tail(&log), (Ok((end + behind.len()) as u64), sound.clone()));
            }
        }
        for garbage in [&[0; 700][..], &[0xff; 40], &[1; 70_000], &fragment(8, b"recycled"), &torn[1..]] {
            let log = [&sound[..], garbage].concat();
            assert_eq!(torn_tail(&log), (Ok(garbage.len() as u64), sound.clone()));
            assert_eq!(garbage_cut(&log, next), (Ok(garbage.len() as u64), sound.clone()));
        }
    }
}

#[test]
fn a_torn_batch_of_several_fragments_goes_as_a_whole() {
    let (block, next) = one_block();
    let torn = long_record(next);
    let whole = [&block[..], &torn].concat();
    for end in [1, 5, BLOCK, BLOCK + 100, 2 * BLOCK, torn.len() - 1] {
        assert_eq!(torn_tail(&whole[..BLOCK + end]).1, block);
        assert_eq!(garbage_cut(&whole[..BLOCK + end], next - 1).1, block);
    }
    // Its parts reach the disk in any order, so the last may be there without the others.
    for lost in [0..BLOCK, BLOCK..2 * BLOCK, 3..BLOCK + 4] {
        let mut log = whole.clone();
        log[BLOCK..][lost].fill(0);
        assert_eq!(torn_tail(&log), (Ok(torn.len() as u64), block.clone()));
    }
}

#[test]
fn damage_before_a_whole_batch_is_refused_wherever_it_is() {
    let (block, next) = one_block();
    let sound = record(4, b"zero");
    let log = [&block[..], &record(next, b"two"), &record(next + 1, b"three")].concat();
    let last = log.len() - record(0, b"three").len();
    for at in (0..3 * HEADER).chain(BLOCK - 9..last).filter(|at| !(BLOCK - 3..BLOCK).contains(at)) {
        let mut log = log.clone();
        log[at] ^= 0x10;
        refused(&log);
    }
    for len in [1, 6, 7, 40, 700, BLOCK] {
        for byte in [0, 5, 0xff] {
            refused(&[&sound[..], &vec![byte; len], &record(5, b"behind")].concat());
        }
    }
    refused(&[&sound[..], &long_record(5)[..BLOCK], &record(9, b"behind half a record")].concat());
    let mut first = [long_record(5), record(6, b"behind")].concat();
    first[BLOCK + 77] ^= 1;
    refused(&first);
}

#[test]
fn bytes_that_were_a_log_once_are_not_taken_for_a_batch() {
    let sound = record(500, b"zero");
    let torn = record(501, &[b"a value that is a log: ", &record(7, b"old")[..]].concat());
    let log = [&sound[..], &torn[..torn.len() - 1], &record(499, b"of a deleted file")].concat();
    assert_eq!(torn_tail(&log).1, sound);
}

#[test]
fn a_newer_log_counts_as_behind() {
    let (sound, torn) = (record(5, b"sound"), &record(6, b"torn")[..9]);
    let damaged = [&sound[..], torn].concat();
    let newer = record(6, b"newer");
    let (result, after) = treated(&[&damaged, &newer], cut_torn_tail);
    assert_eq!(result.expect_err("lost").code, FsCode::Corrupt);
    assert_eq!(after, [damaged.clone(), newer.clone()]);
    let (result, after) = treated(&[&damaged, b"garbage"], cut_torn_tail);
    assert_eq!((result, after), (Ok(9 + 7), vec![sound.clone(), Vec::new()]));
    let (result, after) = treated(&[&sound, &newer], cut_torn_tail);
    assert_eq!((result, after), (Ok(0), vec![sound, newer]));
}

#[test]
fn what_was_not_durable_is_given_up_and_what_was_is_refused() {
    let sound = [record(4, b"one"), record(5, b"two")].concat();
    let log = [&sound[..], &record(6, b"three")[..5], &record(7, b"four")].concat();
    assert_eq!(garbage_cut(&log, 6), (Ok((log.len() - sound.len()) as u64), sound));
    let (result, after) = garbage_cut(&log, 7);
    assert_eq!(result.expect_err("lost").code, FsCode::Corrupt);
    assert_eq!(after, log);
}

/// RocksDB stops where a log is torn, also if others follow, and does not stop where one ends well.
#[test]
fn an_older_log_that_rocksdb_does_not_get_over_keeps_a_torn_header() {
    let sound = record(4, b"one");
    let still = [&sound[..], b"crc.ln\x05garbage"].concat();
    let (result, after) = treated(&[&still, &record(9, b"newest")], |dir| cut_garbage(dir, 4));
    assert_eq!(result, Ok(10));
    assert_eq!(after, [[&sound[..], b"crc."].concat(), record(9, b"newest")]);
    let other = [&sound[..], b"crc.ln\x01garbage"].concat();
    let (result, after) = treated(&[&other, b""], |dir| cut_garbage(dir, 4));
    assert_eq!((result, &after[0]), (Ok(0), &other));
}

#[test]
fn only_what_rocksdb_does_not_get_over_is_unreadable_and_manifests_are_looked_at_too() {
    let sound = record(4, b"one");
    let still = [&sound[..], b"crc.ln\x05garbage"].concat();
    // It skips a damaged block and meets the next one's start.
    let mut far = vec![0xee; BLOCK + 20];
    far[..sound.len()].copy_from_slice(&sound);
    let mut farther = far.clone();
    farther[BLOCK + 6] = 7;
    let check = |dir: &Path| check_readable(dir).map(|()| 0);
    let policies: [fn(&Path) -> FsResult<u64>; 3] = [check, cut_torn_tail, |dir| cut_garbage(dir, 0)];
    for (log, readable) in [(&sound, true), (&still, false), (&far, true), (&farther, false)] {
        let (result, after) = treated(&[log], check);
        assert_eq!(result.is_ok(), readable, "{result:?}");
        assert!(after[0] == *log);
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("CURRENT"), "MANIFEST-000007\n").expect("written");
        for policy in policies {
            assert_eq!(policy(dir.path()), Ok(0), "RocksDB says that it is missing");
        }
        std::fs::write(dir.path().join("MANIFEST-000007"), log).expect("written");
        for policy in policies {
            assert_eq!(policy(dir.path()).is_ok(), readable);
        }
    }
}

#[test]
fn no_directory_and_no_log_are_nothing_to_cut() {
    let dir = tempfile::tempdir().expect("temp dir");
    for dir in [dir.path().to_owned(), dir.path().join("none")] {
        assert_eq!(cut_torn_tail(&dir), Ok(0));
        assert_eq!(cut_garbage(&dir, 7), Ok(0));
        assert_eq!(check_readable(&dir), Ok(()));
    }
}
