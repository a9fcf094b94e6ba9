//! Exports to a real S3 server and to a directory, of files that are in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use sateen_dev_s3::server::{self, Keys, Pace};
use sateen_dev_s3::store::{About, HEADERS, Store};
use sateen_runtime::Shutdown;
use sateen_types::Payload;
use sateen_types::repository::RepositorySettings;

use super::*;
use crate::config::Config;
use crate::credentials::Profile;

const MIB: usize = 1 << 20;
/// More than any file here has: copies are made at once.
const AT_ONCE: u64 = 1 << 30;

/// A bucket and a directory. Both end with it.
struct Stores {
    store: Arc<Store>,
    remotes: Vec<(&'static str, Remote)>,
    dir: tempfile::TempDir,
    stop: Shutdown,
}

impl Drop for Stores {
    fn drop(&mut self) {
        self.stop.request();
    }
}

impl Stores {
    async fn start() -> Stores {
        let dir = tempfile::tempdir().expect("temp dir");
        let keys = dir.path().join("keys");
        std::fs::write(&keys, "[default]\naws_access_key_id = AK\naws_secret_access_key = S/K+\n").expect("written");
        let store = Arc::new(Store::open(&dir.path().join("s3")).expect("opens"));
        store.create_bucket("data").expect("made");
        std::fs::create_dir(dir.path().join("d")).expect("made");
        let stop = Shutdown::new();
        let (send, receive) = tokio::sync::oneshot::channel();
        let (served, keys_of, stopped) = (Arc::clone(&store), Keys::read(&keys).expect("keys"), stop.clone());
        tokio::spawn(async move {
            let ready = |address| send.send(address).expect("somebody waits");
            let listen = "127.0.0.1:0".parse().expect("an address");
            server::run(served, listen, keys_of, Pace::default(), stopped, ready).await.expect("serves");
        });
        let endpoint = format!("http://{}", receive.await.expect("listens"));
        let mut config = Config { directories: vec![dir.path().to_owned()], ..Config::default() };
        config.profiles.insert("default".to_owned(), Profile { file: keys, ..Profile::default() });
        let open = |url: String, endpoint: &str| {
            let settings = RepositorySettings {
                endpoint: endpoint.to_owned(),
                ..RepositorySettings::new("/d".parse().expect("path"), url.parse().expect("url"))
            };
            Remote::open(&settings, &config).expect("opens")
        };
        let directory = open(format!("file://{}/", dir.path().join("d").display()), "");
        let remotes = vec![("S3", open("s3://data/p re/".to_owned(), &endpoint)), ("directory", directory)];
        Stores { store, remotes, dir, stop }
    }

    fn s3(&self) -> &Remote {
        &self.remotes[0].1
    }
}

/// A file in memory.
struct InMemory {
    bytes: Bytes,
    changed: AtomicBool,
    /// Questions whether it has changed.
    asked: AtomicU64,
}

impl Source for &InMemory {
    async fn changed_under_way(&self) -> FsResult<bool> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.changed.load(Ordering::Relaxed))
    }

    async fn read(&self, offset: u64, len: usize) -> FsResult<Payload> {
        let start = (offset as usize).min(self.bytes.len());
        let mut rest = self.bytes.slice(start..self.bytes.len().min(start + len));
        let first = rest.split_to(rest.len() / 3);
        Ok([first, rest].into_iter().collect())
    }
}

fn file(bytes: impl Into<Bytes>) -> InMemory {
    InMemory { bytes: bytes.into(), changed: AtomicBool::new(false), asked: AtomicU64::new(0) }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ (i >> 16) as u8).collect()
}

fn work(key: &str, size: usize) -> Export {
    let time = Timestamp { seconds: 1_595_002_920, nanos: 1 };
    Export {
        fid: Fid::ROOT,
        key: key.into(),
        mode: 0o100_640,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        atime: time,
        mtime: time,
        size: size as u64,
        symlink: None,
        known_etag: String::new(),
        copy: None,
        earlier: Vec::new(),
        overrule_etag: String::new(),
        may_be_gone: false,
    }
}

async fn export(remote: &Remote, number: u64, work: &Export, source: &InMemory) -> ExportOutcome {
    export_copying(remote, number, work, source, remote.copy_bytes_max()).await
}

/// [`export`] with another limit of what is copied at once.
async fn export_copying(
    remote: &Remote,
    number: u64,
    work: &Export,
    source: &InMemory,
    copy_bytes_max: u64,
) -> ExportOutcome {
    let (figures, room, about) = (Figures::default(), Room::new(64 << 20), about(number, work));
    let job = Job { remote, number, work, about, figures: &figures, room: &room, copy_bytes_max, source };
    let done = job.store().await;
    report(done, &figures).expect("its fate is known")
}

async fn stored(remote: &Remote, number: u64, work: &Export, source: &InMemory) -> Found {
    let outcome = export(remote, number, work, source).await;
    assert_eq!(outcome.result, ExportResult::Stored, "{}", outcome.message);
    outcome.object.expect("an object")
}

async fn bytes(remote: &Remote, key: &str, found: &Found) -> Vec<u8> {
    match found.size {
        0 => Vec::new(),
        size => remote.get_all(key.as_bytes(), &found.etag, size).await.expect("read"),
    }
}

/// Everything below a directory that is not in its place yet.
fn unfinished(dir: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).expect("readable").flatten() {
        count += usize::from(entry.file_name().to_string_lossy().starts_with(".sateen-export-"));
        if entry.file_type().expect("known").is_dir() {
            count += unfinished(&entry.path());
        }
    }
    count
}

#[tokio::test]
async fn a_file_is_stored_with_its_attributes_and_replaced_if_it_is_the_known_one() {
    let stores = Stores::start().await;
    for (name, remote) in &stores.remotes {
        let first = stored(remote, 7, &work("a/b c/ü+%", 5), &file("first")).await;
        let head = remote.head("a/b c/ü+%".as_bytes()).await.expect("there");
        assert_eq!((head.size, &head.etag, head.posix.export), (5, &first.etag, Some(7)), "{name}");
        assert_eq!((head.posix.mode, head.posix.mtime.map(|t| t.seconds)), (Some(0o100_640), Some(1_595_002_920)));
        assert_eq!(bytes(remote, "a/b c/ü+%", &first).await, b"first", "{name}");

        let known = Export { known_etag: first.etag.clone(), ..work("a/b c/ü+%", 6) };
        let second = stored(remote, 8, &known, &file("second")).await;
        assert_eq!(bytes(remote, "a/b c/ü+%", &second).await, b"second", "{name}");
        assert_ne!(first.etag, second.etag);

        // What both know no more is a conflict, and nothing is touched.
        for stale in [known, work("a/b c/ü+%", 5)] {
            let outcome = export(remote, 9, &stale, &file("third!")).await;
            assert_eq!((outcome.result, outcome.object), (ExportResult::Conflict, Some(second.clone())), "{name}");
        }
        let gone = Export { known_etag: first.etag.clone(), ..work("never", 1) };
        let outcome = export(remote, 10, &gone, &file("x")).await;
        assert_eq!((outcome.result, outcome.object), (ExportResult::Conflict, None), "{name}");
        assert_eq!(bytes(remote, "a/b c/ü+%", &second).await, b"second", "{name}");
    }
}

#[tokio::test]
async fn directories_links_and_empty_files_are_objects() {
    let stores = Stores::start().await;
    for (name, remote) in &stores.remotes {
        let directory = Export { mode: 0o040_750, ..work("dir/", 0) };
        let made = stored(remote, 1, &directory, &file("")).await;
        let again = Export { mode: 0o040_700, known_etag: made.etag, ..directory };
        stored(remote, 2, &again, &file("")).await;
        let head = remote.head(b"dir/").await.expect("there");
        assert_eq!((head.size, head.posix.mode.map(|m| m & 0o7777)), (0, Some(0o700)), "{name}");

        let link = Export { mode: 0o120_777, symlink: Some(b"../else/where".to_vec()), ..work("dir/link", 0) };
        let made = stored(remote, 3, &link, &file("")).await;
        assert_eq!(bytes(remote, "dir/link", &made).await, b"../else/where", "{name}");
        assert_eq!(remote.head(b"dir/link").await.expect("there").posix.kind(), Kind::Symlink, "{name}");

        let empty = stored(remote, 4, &work("dir/empty", 0), &file("")).await;
        assert_eq!(empty.size, 0, "{name}");
        let listed = remote.list(b"", 10).await.expect("a page").objects;
        assert_eq!(listed.len(), 3, "{name}: {listed:?}");

        let pipe = export(remote, 5, &Export { mode: 0o010_644, ..work("pipe", 0) }, &file("")).await;
        assert_eq!((pipe.result, pipe.code.is_empty()), (ExportResult::Skipped, false), "{name}");
    }
}

#[tokio::test]
async fn a_large_file_is_stored_in_parts_or_not_at_all() {
    let stores = Stores::start().await;
    let data = pattern(40 * MIB + 4097);
    for (name, remote) in &stores.remotes {
        let source = file(data.clone());
        let made = stored(remote, 1, &work("large", data.len()), &source).await;
        assert_eq!(source.asked.load(Ordering::Relaxed), 1, "{name}: asked when all parts are there");
        assert!(bytes(remote, "large", &made).await == data, "{name}: other bytes");

        let changed = InMemory { changed: AtomicBool::new(true), ..file(data.clone()) };
        for (number, size) in [(2, 100), (3, data.len())] {
            let outcome = export(remote, number, &work("torn", size), &changed).await;
            assert_eq!((outcome.result, outcome.object), (ExportResult::Changed, None), "{name}");
        }
        // It was cut off while it was read.
        let outcome = export(remote, 4, &work("torn", data.len() + MIB), &file(data.clone())).await;
        assert_eq!(outcome.result, ExportResult::Changed, "{name}");
        assert_eq!(remote.head(b"torn").await.expect_err("nothing").trouble, Trouble::Gone, "{name}");
        assert_eq!(remote.clean(b"torn", &[2, 3, 4]).await, Ok(0), "{name}: nothing was left behind");

        let known = Export { known_etag: "0".to_owned(), ..work("large", data.len()) };
        let outcome = export(remote, 5, &known, &file(data.clone())).await;
        assert_eq!((outcome.result, outcome.object), (ExportResult::Conflict, Some(made)), "{name}");
    }
    assert_eq!(unfinished(&stores.dir.path().join("d")), 0);
}

#[tokio::test]
async fn names_and_attributes_are_changed_by_copies() {
    let stores = Stores::start().await;
    let data = pattern(3 * MIB);
    for (name, remote) in &stores.remotes {
        let old = stored(remote, 1, &work("old", data.len()), &file(data.clone())).await;
        let source =
            |found: &Found| Some(CopySource { key: b"old".to_vec(), etag: found.etag.clone(), size: found.size });
        // The bytes here are others: they must not be read.
        let renamed = Export { copy: source(&old), ..work("new/name", data.len()) };
        let new = stored(remote, 2, &renamed, &file("")).await;
        assert!(bytes(remote, "new/name", &new).await == data, "{name}");
        assert_eq!(remote.head(b"new/name").await.expect("there").posix.export, Some(2), "{name}");

        let chmod =
            Export { mode: 0o100_600, copy: source(&old), known_etag: old.etag.clone(), ..work("old", data.len()) };
        let changed = stored(remote, 3, &chmod, &file("")).await;
        assert!(bytes(remote, "old", &changed).await == data, "{name}");
        assert_eq!(remote.head(b"old").await.expect("there").posix.mode, Some(0o100_600), "{name}");

        let stale = Export { copy: source(&old), ..work("third", data.len()) };
        assert_eq!(export(remote, 4, &stale, &file("")).await.result, ExportResult::SourceGone, "{name}");
        let conflict = Export { copy: source(&changed), ..work("new/name", data.len()) };
        let outcome = export(remote, 5, &conflict, &file("")).await;
        assert_eq!(
            (outcome.result, outcome.object.map(|o| o.etag)),
            (ExportResult::Conflict, Some(new.etag)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn copies_keep_what_others_said_of_the_object() {
    let stores = Stores::start().await;
    let data = pattern(12 * MIB + 5);
    let text = |of: &[(&str, &str)]| of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let there = About {
        metadata: text(&[("colour", "red"), ("file-owner", "99"), ("file-permissions", "0100666")]),
        content_type: Some("text/html".to_owned()),
        headers: text(&HEADERS.map(|name| (name, "en"))),
    };
    let mut incoming = stores.store.begin("data").expect("begins");
    std::io::Write::write_all(&mut incoming.file, &data).expect("written");
    let put = stores.store.commit("data", "p re/old", incoming, there.clone(), |_| true).expect("commits");
    let mut etag = put.expect("put").etag();
    let source = |etag: &str| Some(CopySource { key: b"old".to_vec(), etag: etag.to_owned(), size: data.len() as u64 });
    for (number, key, at_once_max) in
        [(1, "renamed", AT_ONCE), (2, "in parts", 5 << 20), (3, "old", AT_ONCE), (4, "old", 5 << 20)]
    {
        let known_etag = if key == "old" { etag.clone() } else { String::new() };
        let copy = Export { copy: source(&etag), known_etag, mode: 0o100_600, ..work(key, data.len()) };
        let outcome = export_copying(stores.s3(), number, &copy, &file(""), at_once_max).await;
        assert_eq!(outcome.result, ExportResult::Stored, "{key}: {}", outcome.message);
        let made = outcome.object.expect("an object");
        assert!(bytes(stores.s3(), key, &made).await == data, "{key}: other bytes");
        let record = stores.store.get("data", &format!("p re/{key}")).expect("reads").expect("there");
        assert_eq!((&record.content_type, &record.headers), (&there.content_type, &there.headers), "{key}");
        let said = |name: &str| record.metadata.get(name).map(String::as_str);
        let owner = copy.uid.to_string();
        assert_eq!((said("colour"), said("file-owner")), (Some("red"), Some(owner.as_str())), "{key}");
        assert_eq!(
            (said("file-permissions"), said("sateen-export")),
            (Some("0100600"), Some(&*format!("{number:016x}")))
        );
        if key == "old" {
            etag = made.etag;
        }
    }
    // Of bytes that are new nobody has said anything.
    let new = Export { known_etag: etag, ..work("old", 3) };
    stored(stores.s3(), 5, &new, &file("new")).await;
    let record = stores.store.get("data", "p re/old").expect("reads").expect("there");
    assert_eq!((record.metadata.get("colour"), record.headers.len()), (None, 0));
    // A source that is another one by now.
    for at_once_max in [AT_ONCE, 5 << 20] {
        let stale = Export { copy: source("0"), ..work("stale", data.len()) };
        let outcome = export_copying(stores.s3(), 6, &stale, &file(""), at_once_max).await;
        assert_eq!(outcome.result, ExportResult::SourceGone, "{}", outcome.message);
    }
}

#[tokio::test]
async fn large_objects_are_copied_in_parts() {
    let stores = Stores::start().await;
    let data = pattern(12 * MIB + 5);
    for (name, remote) in &stores.remotes {
        let old = stored(remote, 1, &work("old", data.len()), &file(data.clone())).await;
        let upload = remote.upload(b"new", &about(2, &work("new", data.len())), None).await.expect("begins");
        for (index, start) in [(1, 6 * MIB), (0, 0)] {
            let range = sateen_types::Extent { start: start as u64, end: data.len().min(start + 6 * MIB) as u64 };
            upload.copy_part(index, b"old", &old.etag, range).await.expect("copied");
        }
        let range = sateen_types::Extent { start: 12 << 20, end: data.len() as u64 };
        let other = upload.copy_part(2, b"old", "0", range).await.expect_err("another object");
        assert_eq!(other.trouble, Trouble::Changed, "{name}");
        upload.copy_part(2, b"old", &old.etag, range).await.expect("copied");
        let made = upload.complete(&Expected::Nothing).await.expect("complete");
        let made = Found { size: data.len() as u64, etag: made.etag, modified: old.modified };
        assert!(bytes(remote, "new", &made).await == data, "{name}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_found_out_by_the_number_of_the_assignment() {
    let stores = Stores::start().await;
    let remote = stores.s3();
    let large = pattern(20 * MIB);
    let source = Some(CopySource { key: b"small".to_vec(), etag: String::new(), size: 5 });
    let mut small = String::new();
    for (number, data, copy) in [(1, b"bytes".to_vec(), None), (2, large.clone(), None), (3, b"bytes".to_vec(), source)]
    {
        let key = if number == 1 { "small".to_owned() } else { format!("k{number}") };
        let copy = copy.map(|copy| CopySource { etag: small.clone(), ..copy });
        stores.store.lose_answers(1);
        let made = stored(remote, number, &Export { copy, ..work(&key, data.len()) }, &file(data.clone())).await;
        assert!(!stores.store.loses_answer(), "{key}: no answer was lost");
        assert!(bytes(remote, &key, &made).await == data, "{key}");
        small = if number == 1 { made.etag } else { small };
    }
    stores.store.lose_answers(1);
    let figures = Figures::default();
    let gone = delete(remote, b"k2", &remote.head(b"k2").await.expect("there").etag, &[], &figures).await;
    assert_eq!((gone.result, gone.object), (DeleteResult::Deleted, None), "{}", gone.message);
}

#[tokio::test]
async fn what_an_earlier_attempt_stored_is_no_conflict() {
    let stores = Stores::start().await;
    for (name, remote) in &stores.remotes {
        stored(remote, 11, &work("k", 5), &file("first")).await;
        let foreign = Export { earlier: vec![9, 12], ..work("k", 6) };
        assert_eq!(export(remote, 13, &foreign, &file("second")).await.result, ExportResult::Conflict, "{name}");
        let ours = Export { earlier: vec![9, 11], ..foreign };
        let made = stored(remote, 14, &ours, &file("second")).await;
        assert_eq!(bytes(remote, "k", &made).await, b"second", "{name}");

        // Its parts went with it, or go with the next attempt.
        let upload = remote.upload(b"k", &about(15, &work("k", 7)), None).await.expect("begins");
        std::mem::forget(upload);
        let next = Export { earlier: vec![15], known_etag: made.etag, ..work("k", 5) };
        let made = stored(remote, 16, &next, &file("third")).await;
        assert_eq!(remote.clean(b"k", &[15]).await, Ok(0), "{name}");

        let figures = Figures::default();
        let kept = delete(remote, b"k", "", &[15], &figures).await;
        assert_eq!((kept.result, kept.object.map(|o| o.etag)), (DeleteResult::Conflict, Some(made.etag)), "{name}");
        assert_eq!(delete(remote, b"k", "", &[16], &figures).await.result, DeleteResult::Deleted, "{name}");
        assert_eq!(delete(remote, b"k", "e", &[], &figures).await.result, DeleteResult::Deleted, "{name}: twice");
    }
}

#[tokio::test]
async fn what_somebody_has_decided_to_replace_is_replaced_if_it_is_what_he_saw() {
    let stores = Stores::start().await;
    for (name, remote) in &stores.remotes {
        let theirs = stored(remote, 1, &work("k", 6), &file("theirs")).await;
        let decided =
            |etag: &str| Export { overrule_etag: etag.to_owned(), known_etag: etag.to_owned(), ..work("k", 4) };
        let outcome = export(remote, 2, &decided("0"), &file("ours")).await;
        assert_eq!((outcome.result, outcome.object), (ExportResult::Conflict, Some(theirs.clone())), "{name}");
        let ours = stored(remote, 3, &decided(&theirs.etag), &file("ours")).await;
        assert_eq!(bytes(remote, "k", &ours).await, b"ours", "{name}");
        assert_eq!(delete(remote, b"k", &ours.etag, &[], &Figures::default()).await.result, DeleteResult::Deleted);
        stored(remote, 4, &decided(&ours.etag), &file("ours")).await;
    }
}

#[tokio::test]
async fn of_two_at_the_same_time_one_is_told_of_the_other() {
    let stores = Stores::start().await;
    for (name, remote) in &stores.remotes {
        let (one, two) = (work("k", 3), work("k", 3));
        let (a, b) = (file("one"), file("two"));
        let (first, second) = tokio::join!(export(remote, 1, &one, &a), export(remote, 2, &two, &b));
        let results = [first.result, second.result];
        let won = results.iter().position(|r| *r == ExportResult::Stored).unwrap_or_else(|| panic!("{name}: nobody"));
        assert_eq!(results[1 - won], ExportResult::Conflict, "{name}");
        let found = [first, second][won].object.clone().expect("an object");
        assert_eq!(bytes(remote, "k", &found).await, [&b"one"[..], b"two"][won], "{name}");
    }
}
