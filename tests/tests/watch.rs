//! What is changed in a bucket by others is changed in the directory, by itself, whoever tells of it, and if nobody does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sateen_tests::repository::Linked;
use sateen_tests::s3::BUCKET;
use sateen_tests::s3_proxy::{Operation, Proxy};
use sateen_tests::wait;
use sateen_types::repository::{EventSource, ImportState, RepositoryEvents, RepositorySettings};

const ALL: RepositoryEvents = RepositoryEvents { created: true, changed: true, deleted: true };
/// From a change to the directory, with events: what is promised, and then some for a loaded machine.
const EVENT: Duration = Duration::from_secs(30);
/// The same without: two intervals of a minute.
const SYNC: Duration = Duration::from_secs(150);
const KEYS: [(&str, &str); 3] = [("kept", "as it was"), ("changed", "old"), ("dir/gone", "to be deleted")];

fn listening(settings: &mut RepositorySettings) {
    settings.auto_import = ALL;
    settings.event_source = EventSource::Listen;
}

fn fill(store: &sateen_dev_s3::store::Store) {
    for (key, bytes) in KEYS {
        store.put(BUCKET, key, bytes.as_bytes(), &[]).expect("put");
    }
}

/// Waits until a file has these bytes.
#[track_caller]
fn has(path: &Path, bytes: &str, within: Duration) {
    let mut last = None;
    let done = wait::try_until(within, || {
        last = Some(fs::read_to_string(path));
        last.as_ref()?.as_ref().ok().filter(|read| *read == bytes).map(drop)
    });
    assert!(done.is_some(), "{}: {last:?}, not {bytes:?}", path.display());
}

#[track_caller]
fn goes(path: &Path, within: Duration) {
    wait::until(&format!("{} is gone", path.display()), within, || {
        fs::symlink_metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound).then_some(())
    });
}

/// Changes everything that can change in a bucket, and waits for it.
#[track_caller]
fn changes_are_seen(linked: &Linked, within: Duration) {
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    for (key, bytes) in KEYS {
        has(&at(key), bytes, within);
    }
    linked.s3.put("new", b"made by others", &[("file-permissions", "0100640"), ("file-owner", "77")]);
    linked.s3.put("deep/er/still", b"with its directories", &[]);
    linked.s3.put("blank and +", b"encoded", &[]);
    linked.s3.put("changed", b"of another length", &[]);
    linked.s3.delete("dir/gone");
    has(&at("new"), "made by others", within);
    has(&at("deep/er/still"), "with its directories", within);
    has(&at("blank and +"), "encoded", within);
    has(&at("changed"), "of another length", within);
    goes(&at("dir/gone"), within);
    has(&at("kept"), "as it was", within);
    let told = fs::metadata(at("new")).expect("attributes");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&told) & 0o7777, 0o640);
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&told), 77);
    // And once more, of what came by itself.
    linked.s3.put("new", b"again", &[]);
    linked.s3.delete("deep/er/still");
    has(&at("new"), "again", within);
    goes(&at("deep/er/still"), within);
    linked.cluster.assert_names_sound();
}

#[test]
fn a_store_that_is_listened_to_changes_the_directory() {
    let linked = Linked::start_with("watch-listen", listening, fill);
    linked.watched();
    changes_are_seen(&linked, EVENT);
}

#[test]
fn a_webhook_changes_the_directory() {
    let mut linked = Linked::start_with("watch-webhook", |settings| settings.auto_import = ALL, fill);
    linked.tell_webhook();
    changes_are_seen(&linked, EVENT);
}

#[test]
fn a_comparison_alone_changes_the_directory() {
    let settings = |settings: &mut RepositorySettings| {
        settings.auto_import = ALL;
        settings.sync_interval_s = 60;
    };
    let linked = Linked::start_with("watch-sync", settings, fill);
    changes_are_seen(&linked, SYNC);
}

#[test]
fn what_nobody_told_of_is_repaired_by_a_comparison() {
    let mut linked = Linked::start_with("watch-lost", listening, fill);
    linked.watched();
    linked.workers[0].kill9();
    linked.s3.put("new", b"told to nobody", &[]);
    linked.s3.put("changed", b"told to nobody either", &[]);
    linked.s3.delete("dir/gone");
    linked.add_worker();
    let done = linked.compare().import;
    assert_eq!((done.state, done.created, done.changed), (ImportState::Done, 1, 1), "{done:?}");
    let mount = linked.cluster.mount();
    has(&linked.on(&mount, "new"), "told to nobody", EVENT);
    has(&linked.on(&mount, "changed"), "told to nobody either", EVENT);
    goes(&linked.on(&mount, "dir/gone"), EVENT);
    // The watch goes on with the other worker.
    linked.watched();
    linked.s3.put("later", b"told", &[]);
    has(&linked.on(&mount, "later"), "told", EVENT);
    linked.cluster.assert_names_sound();
}

#[test]
fn only_what_the_policy_names_is_carried_over() {
    let settings = |settings: &mut RepositorySettings| {
        settings.auto_import = RepositoryEvents { created: true, changed: false, deleted: false };
        settings.event_source = EventSource::Listen;
    };
    let linked = Linked::start_with("watch-policy", settings, fill);
    linked.watched();
    let mount = linked.cluster.mount();
    has(&linked.on(&mount, "changed"), "old", EVENT);
    linked.s3.put("changed", b"new bytes", &[]);
    linked.s3.delete("dir/gone");
    linked.s3.put("new", b"made", &[]);
    // Told after the others, so they were looked at.
    has(&linked.on(&mount, "new"), "made", EVENT);
    assert_eq!(fs::read_to_string(linked.on(&mount, "changed")).expect("read"), "old");
    assert!(linked.on(&mount, "dir/gone").exists());
}

#[test]
fn what_is_exported_from_here_does_not_come_back() {
    let settings = |settings: &mut RepositorySettings| {
        listening(settings);
        settings.auto_export = ALL;
    };
    let linked = Linked::start_with("watch-loop", settings, |_| {});
    linked.watched();
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    fs::create_dir(at("dir")).expect("made");
    for i in 0..20 {
        fs::write(at(&format!("dir/f{i}")), format!("first {i}")).expect("written");
    }
    linked.exported("twenty files", |bucket| (0..20).all(|i| bucket.contains_key(&format!("dir/f{i}"))));
    for i in 0..10 {
        fs::write(at(&format!("dir/f{i}")), format!("second {i}")).expect("written");
    }
    fs::remove_file(at("dir/f19")).expect("removed");
    let settled = linked.exported("ten files once more, and one less", |bucket| {
        let second = |i: &u32| bucket.get(&format!("dir/f{i}")).is_some_and(|o| o.bytes.starts_with(b"second"));
        (0..10).all(|i| second(&i)) && !bucket.contains_key("dir/f19")
    });
    // Told after everything that was exported.
    linked.s3.put("mark", b"from outside", &[]);
    has(&at("mark"), "from outside", EVENT);
    for i in 0..19 {
        let first = if i < 10 { "second" } else { "first" };
        assert_eq!(fs::read_to_string(at(&format!("dir/f{i}"))).expect("read"), format!("{first} {i}"));
    }
    assert!(!at("dir/f19").exists());
    let count = |answer: &str| linked.workers[0].figure(&format!("event_keys_total{{answer=\"{answer}\"}}"));
    let came = (count("created"), count("changed"), count("deleted"));
    assert_eq!(came, (1, 0, 0), "of the events only the one from outside changed anything");
    let mut now = linked.exported("nothing more", |_| true);
    now.remove("mark");
    assert_eq!(now, settled, "nothing was stored again");
    assert!(linked.conflicts().is_empty());
    linked.cluster.assert_names_sound();
}

#[test]
fn a_source_that_does_not_work_is_told_of_and_comes_back() {
    let mut linked = Linked::start_with("watch-down", listening, fill);
    linked.watched();
    linked.s3.kill9();
    wait::until("a message of what does not work", EVENT, || (!linked.now()?.watch_message.is_empty()).then_some(()));
    linked.s3.run();
    linked.watched();
    let mount = linked.cluster.mount();
    linked.s3.put("after", b"it is back", &[]);
    has(&linked.on(&mount, "after"), "it is back", EVENT);
}

/// A comparison of what has not changed costs a listing.
#[test]
fn only_objects_that_changed_are_asked_for() {
    const OBJECTS: usize = 2100;
    let mut proxy = None;
    let through = |settings: &mut RepositorySettings| {
        let made = Proxy::start(&settings.endpoint, 1);
        settings.endpoint = made.endpoint();
        proxy = Some(made);
    };
    let mut linked = Linked::start_with("watch-known", through, |store| {
        for i in 0..OBJECTS {
            store.put(BUCKET, &format!("d{}/{i:04}", i % 7), b"bytes", &[]).expect("put");
        }
        store.put(BUCKET, "d1/", b"", &[("file-permissions", "0040700")]).expect("put");
        store.put(BUCKET, "link", b"d1/0001", &[("file-permissions", "0120777")]).expect("put");
        store.put(BUCKET, "touched", b"the same", &[("file-permissions", "0100600")]).expect("put");
        store.put(BUCKET, "changed", b"old", &[]).expect("put");
    });
    let proxy = proxy.expect("the settings are asked for");
    let all = (OBJECTS + 4) as u64;
    let first = linked.now().expect("the MDS answers").import;
    let heads = || proxy.asked(Operation::Head);
    assert_eq!(first.objects, all);
    assert!(heads() >= all, "{} requests for {all} objects", heads());
    let mut before = heads();
    let mut asked = |linked: &Linked, what: &str| {
        let listed = proxy.asked(Operation::List);
        let done = linked.compare().import;
        assert!(proxy.asked(Operation::List) >= listed + 3, "{what}: all was listed");
        let count = heads() - std::mem::replace(&mut before, heads());
        (done.objects, done.created, done.changed, count)
    };
    assert_eq!(asked(&linked, "nothing changed"), (all, 0, 0, 0));
    linked.s3.put("changed", b"new bytes", &[]);
    linked.s3.put("d1/new", b"new", &[]);
    linked.s3.touch("touched", &[("file-permissions", "0100640"), ("file-owner", "77")]);
    linked.s3.delete("d2/0002");
    assert_eq!(asked(&linked, "three changed, one is gone"), (all, 1, 2, 3));
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    has(&at("changed"), "new bytes", EVENT);
    has(&at("d1/new"), "new", EVENT);
    has(&at("touched"), "the same", EVENT);
    let touched = fs::metadata(at("touched")).expect("attributes");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&touched) & 0o7777, 0o640);
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&touched), 77);
    goes(&at("d2/0002"), EVENT);
    assert_eq!(asked(&linked, "all is known"), (all, 0, 0, 0));
    // What has gone here is made again: its attributes are asked for.
    fs::remove_file(at("d3/0003")).expect("removed");
    assert_eq!(asked(&linked, "one is missing here"), (all, 1, 0, 1));
    linked.cluster.assert_names_sound();
}
