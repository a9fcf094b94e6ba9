//! Buckets in a directory, with any key that S3 allows.
//!
//! ```text
//! DIR/BUCKET/log         one JSON document for each put and delete, in order
//! DIR/BUCKET/data/N      bytes of the object that was put as number N
//! ```
//!
//! The log is read when the directory is opened, and kept in memory. A line that was not finished is the end of it. Nothing is
//! synced: an object that was put survives the process, not the machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use sateen_types::{FsCode, FsError, FsResult};
use serde::{Deserialize, Serialize};

use crate::notify::{Change, Changes};

/// Longest key (S3), in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// Headers that are kept with an object, beside its Content-Type.
pub const HEADERS: [&str; 4] = ["cache-control", "content-disposition", "content-encoding", "content-language"];

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Number of the put: names the file with the bytes, and is the ETag.
    pub number: u64,
    /// Bytes.
    pub size: u64,
    /// When it was put, since 1970.
    pub modified: Duration,
    /// User metadata, without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
    /// Content-Type, if one was given.
    #[serde(default)]
    pub content_type: Option<String>,
    /// Other headers that were given: [`HEADERS`].
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// What is kept of an object beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// User metadata, without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
    /// Content-Type, if one was given.
    pub content_type: Option<String>,
    /// Of [`HEADERS`].
    pub headers: BTreeMap<String, String>,
}

impl Record {
    /// Without quotes.
    pub fn etag(&self) -> String {
        format!("{:032x}", self.number)
    }

    /// When it was put.
    pub fn modified(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.modified
    }
}

/// One line of a log.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    Put { key: String, record: Record },
    Delete { key: String },
}

#[derive(Debug)]
struct Bucket {
    log: File,
    objects: BTreeMap<String, Record>,
    next: u64,
}

/// All buckets of a directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    buckets: Mutex<BTreeMap<String, Bucket>>,
    lost_answers: AtomicU32,
    changes: Changes,
}

/// An object, or a part of one, whose bytes are being received. Its bytes go when it is dropped without having taken a key.
#[derive(Debug)]
pub struct Incoming {
    /// Where the bytes go.
    pub file: File,
    number: u64,
    path: PathBuf,
    taken: bool,
}

impl Incoming {
    /// What its ETag will be, without quotes.
    pub fn etag(&self) -> String {
        format!("{:032x}", self.number)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.taken {
            // Bytes too many are nobody's loss.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A part of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Keys and objects, in order.
    pub objects: Vec<(String, Record)>,
    /// Beginnings of keys up to the delimiter, in order.
    pub prefixes: Vec<String>,
    /// Go on behind this; `None`: nothing follows.
    pub next: Option<String>,
}

fn failed(what: &Path, e: std::io::Error) -> FsError {
    FsError::new(FsCode::Io, format!("{}: {e}", what.display()))
}

fn no_bucket(name: &str) -> FsError {
    FsError::new(FsCode::NotFound, format!("there is no bucket {name:?}"))
}

impl Store {
    /// Opens a directory, which is made if it is missing.
    pub fn open(dir: &Path) -> FsResult<Store> {
        std::fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
        Store::read(dir, true)
    }

    /// What is in a directory now, which another process may be changing. Nothing can be put there.
    pub fn peek(dir: &Path) -> FsResult<Store> {
        Store::read(dir, false)
    }

    fn read(dir: &Path, changes: bool) -> FsResult<Store> {
        let mut buckets = BTreeMap::new();
        for entry in std::fs::read_dir(dir).map_err(|e| failed(dir, e))? {
            let entry = entry.map_err(|e| failed(dir, e))?;
            if let (true, Ok(name)) = (entry.path().join("log").is_file(), entry.file_name().into_string()) {
                buckets.insert(name, Bucket::open(&entry.path(), changes)?);
            }
        }
        Ok(Store {
            dir: dir.to_owned(),
            buckets: Mutex::new(buckets),
            lost_answers: AtomicU32::new(0),
            changes: Changes::default(),
        })
    }

    /// Makes a bucket if it is missing; whether it was.
    pub fn create_bucket(&self, name: &str) -> FsResult<bool> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        if !(3..=63).contains(&name.len()) || !name.bytes().all(plain) || name.starts_with('.') {
            return Err(FsError::new(FsCode::Invalid, format!("{name:?} is no name of a bucket"))
                .with_hint("use 3 to 63 small letters, digits, '-' or '.'"));
        }
        let mut buckets = self.buckets.lock();
        if buckets.contains_key(name) {
            return Ok(false);
        }
        let path = self.dir.join(name);
        std::fs::create_dir_all(path.join("data")).map_err(|e| failed(&path, e))?;
        buckets.insert(name.to_owned(), Bucket::open(&path, true)?);
        Ok(true)
    }

    /// Tells of every change.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Names of all buckets.
    pub fn buckets(&self) -> Vec<String> {
        self.buckets.lock().keys().cloned().collect()
    }

    /// An object; `None` if there is none under the key.
    pub fn get(&self, bucket: &str, key: &str) -> FsResult<Option<Record>> {
        let buckets = self.buckets.lock();
        let bucket = buckets.get(bucket).ok_or_else(|| no_bucket(bucket))?;
        Ok(bucket.objects.get(key).cloned())
    }

    /// The bytes of an object. Whoever has it open keeps it when another one takes its key.
    pub fn data(&self, bucket: &str, record: &Record) -> FsResult<File> {
        let path = self.data_path(bucket, record.number);
        File::open(&path).map_err(|e| failed(&path, e))
    }

    /// Begins to receive an object.
    pub fn begin(&self, bucket: &str) -> FsResult<Incoming> {
        let mut buckets = self.buckets.lock();
        let known = buckets.get_mut(bucket).ok_or_else(|| no_bucket(bucket))?;
        let number = known.next;
        known.next += 1;
        let path = self.data_path(bucket, number);
        let file = File::options().create_new(true).read(true).write(true).open(&path);
        Ok(Incoming { file: file.map_err(|e| failed(&path, e))?, number, path, taken: false })
    }

    /// The object is complete and takes its key, if what is there now is `expected`; `None` if it is not.
    pub fn commit(
        &self,
        bucket: &str,
        key: &str,
        mut incoming: Incoming,
        about: About,
        expected: impl FnOnce(Option<&Record>) -> bool,
    ) -> FsResult<Option<Record>> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(FsError::new(FsCode::NameTooLong, format!("a key of {} bytes", key.len())));
        }
        let size = incoming.file.metadata().map_err(|e| failed(&incoming.path, e))?.len();
        let modified = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let About { metadata, content_type, headers } = about;
        let record = Record { number: incoming.number, size, modified, metadata, content_type, headers };
        let line = Line::Put { key: key.to_owned(), record: record.clone() };
        let insert = |objects: &mut BTreeMap<String, Record>| objects.insert(key.to_owned(), record.clone());
        let Some(before) = self.change(bucket, &line, |objects| expected(objects.get(key)), insert)? else {
            return Ok(None);
        };
        incoming.taken = true;
        self.forget(bucket, before);
        Ok(Some(record))
    }

    /// The next `count` writes are made, and answered as if they had failed: for tests of what becomes of lost answers.
    pub fn lose_answers(&self, count: u32) {
        self.lost_answers.store(count, Ordering::SeqCst);
    }

    /// Whether the answer of the write that was made just now is to be lost.
    pub fn loses_answer(&self) -> bool {
        self.lost_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
    }

    /// Puts an object at once.
    pub fn put(&self, bucket: &str, key: &str, bytes: &[u8], metadata: &[(&str, &str)]) -> FsResult<Record> {
        let mut incoming = self.begin(bucket)?;
        incoming.file.write_all(bytes).map_err(|e| failed(&incoming.path, e))?;
        let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let about = About { metadata, ..About::default() };
        let put = self.commit(bucket, key, incoming, about, |_| true)?;
        put.ok_or_else(|| FsError::new(FsCode::Internal, format!("{key:?} was not put")))
    }

    /// Writes the metadata of an object anew, as S3 does with an object that is copied onto itself: its ETag stays, its time does not.
    pub fn touch(&self, bucket: &str, key: &str, metadata: &[(&str, &str)]) -> FsResult<Record> {
        let gone = || FsError::new(FsCode::NotFound, format!("there is no object {key:?}"));
        let before = self.get(bucket, key)?.ok_or_else(gone)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let modified = now.max(before.modified + Duration::from_secs(1));
        let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let record = Record { modified, metadata, ..before.clone() };
        let line = Line::Put { key: key.to_owned(), record: record.clone() };
        let same = |objects: &BTreeMap<String, Record>| objects.get(key) == Some(&before);
        let insert = |objects: &mut BTreeMap<String, Record>| objects.insert(key.to_owned(), record.clone());
        self.change(bucket, &line, same, insert)?.ok_or_else(gone)?;
        Ok(record)
    }

    /// Removes what is under a key, if anything is.
    pub fn delete(&self, bucket: &str, key: &str) -> FsResult<()> {
        self.delete_if(bucket, key, |_| true).map(drop)
    }

    /// Removes what is under a key if it is `expected`; whether nothing is there any more.
    pub fn delete_if(&self, bucket: &str, key: &str, expected: impl FnOnce(&Record) -> bool) -> FsResult<bool> {
        if self.get(bucket, key)?.is_none() {
            return Ok(true);
        }
        let line = Line::Delete { key: key.to_owned() };
        let allowed = |objects: &BTreeMap<String, Record>| objects.get(key).is_none_or(expected);
        let Some(before) = self.change(bucket, &line, allowed, |objects| objects.remove(key))? else {
            return Ok(false);
        };
        self.forget(bucket, before);
        Ok(true)
    }

    /// Keys that begin with `prefix`, behind `after`, at most `max` of them and of beginnings up to `delimiter` behind the prefix.
    pub fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: &str,
        delimiter: Option<&str>,
        max: usize,
    ) -> FsResult<Listing> {
        let buckets = self.buckets.lock();
        let objects = &buckets.get(bucket).ok_or_else(|| no_bucket(bucket))?.objects;
        let mut listing = Listing::default();
        let mut last = after.to_owned();
        let start = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        for (key, record) in objects.range::<str, _>((start, Bound::Unbounded)) {
            let Some(rest) = key.strip_prefix(prefix) else { break };
            let folded = delimiter.and_then(|d| Some(&key[..prefix.len() + rest.find(d)? + d.len()]));
            if folded.is_some_and(|f| listing.prefixes.last().is_some_and(|l| l == f) || after.starts_with(f)) {
                continue;
            }
            if listing.objects.len() + listing.prefixes.len() == max {
                listing.next = Some(last);
                break;
            }
            match folded {
                Some(folded) => listing.prefixes.push(folded.to_owned()),
                None => listing.objects.push((key.clone(), record.clone())),
            }
            last = folded.unwrap_or(key).to_owned();
        }
        Ok(listing)
    }

    /// Makes a change if it is allowed; nothing else happens in between.
    fn change<T>(
        &self,
        bucket: &str,
        line: &Line,
        allowed: impl FnOnce(&BTreeMap<String, Record>) -> bool,
        apply: impl FnOnce(&mut BTreeMap<String, Record>) -> T,
    ) -> FsResult<Option<T>> {
        let mut buckets = self.buckets.lock();
        let known = buckets.get_mut(bucket).ok_or_else(|| no_bucket(bucket))?;
        if !allowed(&known.objects) {
            return Ok(None);
        }
        let mut text =
            serde_json::to_vec(line).map_err(|e| FsError::new(FsCode::Internal, format!("a line of the log: {e}")))?;
        text.push(b'\n');
        known.log.write_all(&text).map_err(|e| failed(&self.dir.join(bucket).join("log"), e))?;
        let done = apply(&mut known.objects);
        let (key, object) = match line {
            Line::Put { key, record } => (key, Some((record.size, record.etag()))),
            Line::Delete { key } => (key, None),
        };
        self.changes.tell(Change { bucket: bucket.to_owned(), key: key.clone(), object });
        Ok(Some(done))
    }

    /// Removes the bytes of an object that nobody finds any more.
    fn forget(&self, bucket: &str, record: Option<Record>) {
        if let Some(record) = record {
            // Bytes too many are nobody's loss.
            let _ = std::fs::remove_file(self.data_path(bucket, record.number));
        }
    }

    fn data_path(&self, bucket: &str, number: u64) -> PathBuf {
        self.dir.join(bucket).join("data").join(number.to_string())
    }
}

impl Bucket {
    fn open(path: &Path, changes: bool) -> FsResult<Bucket> {
        let log_path = path.join("log");
        let log = File::options().create(changes).append(changes).read(true).open(&log_path);
        let log = log.map_err(|e| failed(&log_path, e))?;
        let text = std::fs::read(&log_path).map_err(|e| failed(&log_path, e))?;
        let mut bucket = Bucket { log, objects: BTreeMap::new(), next: 1 };
        let mut good = 0;
        for line in text.split_inclusive(|b| *b == b'\n') {
            let Ok(parsed) = serde_json::from_slice::<Line>(line) else { break };
            good += line.len() as u64;
            match parsed {
                Line::Put { key, record } => {
                    bucket.next = bucket.next.max(record.number + 1);
                    bucket.objects.insert(key, record);
                }
                Line::Delete { key } => {
                    bucket.objects.remove(&key);
                }
            }
        }
        if changes {
            bucket.log.set_len(good).map_err(|e| failed(&log_path, e))?;
        }
        // A put that was not finished has a number as well.
        for entry in std::fs::read_dir(path.join("data")).map_err(|e| failed(path, e))?.flatten() {
            if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) {
                bucket.next = bucket.next.max(number + 1);
            }
        }
        Ok(bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(listing: &Listing) -> Vec<&str> {
        listing.objects.iter().map(|(key, _)| key.as_str()).collect()
    }

    #[test]
    fn every_key_is_kept_beside_every_other() {
        let dir = tempfile::tempdir().expect("temp dir");
        let all = ["a", "a/", "a//b", "a/../b", "a/b", "\u{1}\n", "../x", "ü"];
        let store = Store::open(dir.path()).expect("opens");
        assert!(store.create_bucket("data").expect("made"));
        assert!(!store.create_bucket("data").expect("there"));
        for key in all {
            store.put("data", key, key.as_bytes(), &[("file-owner", "7")]).expect("put");
        }
        store.put("data", "a", b"second", &[]).expect("put");
        store.delete("data", "ü").expect("deleted");
        store.delete("data", "ü").expect("nothing to delete");
        std::fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join("data/log"))
            .and_then(|mut log| log.write_all(b"{\"Put\":{\"ke"))
            .expect("a line that was cut off");
        let again = Store::open(dir.path()).expect("opens");
        let listing = again.list("data", "", "", None, 100).expect("listed");
        assert_eq!(keys(&listing), ["\u{1}\n", "../x", "a", "a/", "a/../b", "a//b", "a/b"]);
        let record = again.get("data", "a").expect("bucket").expect("object");
        assert_eq!((record.size, record.metadata.len()), (6, 0));
        assert_ne!(record.etag(), again.get("data", "a/").expect("bucket").expect("object").etag());
        assert_eq!(std::io::read_to_string(again.data("data", &record).expect("bytes")).expect("read"), "second");
        again.put("data", "z", b"", &[]).expect("the log goes on behind the last good line");
        let seen = Store::peek(dir.path()).expect("opens");
        assert!(seen.get("data", "z").expect("bucket").is_some());
        seen.put("data", "y", b"", &[]).expect_err("only looked at");
        assert!(Store::open(dir.path()).expect("opens").get("data", "z").expect("bucket").is_some());
    }

    #[test]
    fn listings_are_cut_anywhere_and_go_on() {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::open(dir.path()).expect("opens");
        store.create_bucket("data").expect("made");
        for key in ["p/a", "p/b/1", "p/b/2", "p/c", "q"] {
            store.put("data", key, b"", &[]).expect("put");
        }
        for max in 1..5 {
            let (mut found, mut after) = (Vec::new(), String::new());
            loop {
                let part = store.list("data", "p/", &after, Some("/"), max).expect("listed");
                found.extend(part.objects.iter().map(|(key, _)| key.clone()).chain(part.prefixes.iter().cloned()));
                match part.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
            found.sort();
            assert_eq!(found, ["p/a", "p/b/", "p/c"], "{max} at a time");
        }
        assert_eq!(keys(&store.list("data", "p/", "p/b/1", None, 9).expect("listed")), ["p/b/2", "p/c"]);
        assert!(store.list("none", "", "", None, 1).is_err());
    }
}
