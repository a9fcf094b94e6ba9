//! Stores that nobody here wrote (moto's server, Garage, s3s-fs), looked at from outside with boto3 and the AWS CLI: import, lazy load, automatic
//! import through a queue, export in one piece and in parts, renames, deletions, metadata; and which conditions it knows.
//!
//! Needs what `scripts/test-tools.sh` installs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use sateen_tests::peer::Peer;
use sateen_tests::repository::Linked;
use sateen_tests::rng::pattern;
use sateen_tests::s3::{BUCKET, Pace};
use sateen_tests::scratch::Scratch;
use sateen_tests::{Mount, run_ok, wait};
use sateen_types::repository::{ConflictPolicy, EventSource, RepositoryEvents, RepositorySettings};

const MIB: usize = 1 << 20;
/// Longest a change may take to come to the other side on a loaded machine. (Python starts in seconds then.)
const SOON: Duration = Duration::from_secs(90);
const ALL: RepositoryEvents = RepositoryEvents { created: true, changed: true, deleted: true };

/// What boto3 sees of the bucket: size, ETag and metadata of each object, and the MD5 of what it reads.
const SEEN: &str = "
import hashlib
found = {}
for page in s3.get_paginator('list_objects_v2').paginate(Bucket=bucket):
    for o in page.get('Contents', []):
        try: got = s3.get_object(Bucket=bucket, Key=o['Key'])
        except ClientError: continue
        body = got['Body'].read()
        found[o['Key']] = {'size': len(body), 'etag': got['ETag'].strip('\"'), 'listed': o.get('ETag', '').strip('\"'),
                           'meta': got['Metadata'], 'md5': hashlib.md5(body).hexdigest()}
tell(found)
";

#[derive(Debug)]
struct Seen {
    size: u64,
    etag: String,
    meta: BTreeMap<String, String>,
    md5: String,
}

type Bucket = BTreeMap<String, Seen>;

fn seen(moto: &Peer) -> Bucket {
    let all = moto.python(SEEN, &[]);
    let text = |of: &serde_json::Value| of.as_str().expect("text").to_owned();
    let one = |o: &serde_json::Value| Seen {
        size: o["size"].as_u64().expect("a number"),
        etag: text(&o["etag"]),
        meta: o["meta"].as_object().expect("metadata").iter().map(|(k, v)| (k.clone(), text(v))).collect(),
        md5: text(&o["md5"]),
    };
    all.as_object().expect("objects").iter().map(|(key, o)| (key.clone(), one(o))).collect()
}

fn md5(path: &Path) -> String {
    let done = run_ok(std::process::Command::new("md5sum").arg(path), SOON);
    done.stdout.split_whitespace().next().expect("a sum").to_owned()
}

/// A store, and a link to its bucket after `fill` had its way with it. To be dropped the other way round.
#[track_caller]
fn linked(
    label: &'static str,
    start: fn(&Path) -> Peer,
    fill: impl FnOnce(&Peer, &Scratch),
    settings: impl FnOnce(&Peer, &mut RepositorySettings),
) -> (Scratch, Peer, Linked) {
    let scratch = Scratch::new(label);
    let moto = start(scratch.path());
    fill(&moto, &scratch);
    let change = |given: &mut RepositorySettings| {
        given.endpoint = moto.endpoint();
        settings(&moto, given);
    };
    let linked = Linked::begin_with(label, Pace::default(), change, |_| {});
    linked.imported();
    (scratch, moto, linked)
}

/// Waits until the bucket is as wanted and nothing is left to be done.
#[track_caller]
fn exported(moto: &Peer, linked: &Linked, what: &str, wanted: impl Fn(&Bucket) -> bool) -> Bucket {
    let mut last = None;
    let done = wait::try_until(SOON, || {
        let waits = linked.now()?.export.queued;
        if waits > 0 {
            return None;
        }
        last = Some(seen(moto));
        last.as_ref().is_some_and(&wanted).then_some(())
    });
    match (done, last) {
        (Some(()), Some(last)) => last,
        (_, last) => panic!("{what} did not happen: {last:#?}, {:?}", linked.now()),
    }
}

/// What is in the bucket before it is linked.
const FILL: &str = "
from boto3.s3.transfer import TransferConfig
told = {'file-permissions': '0100640', 'file-owner': '1234', 'file-group': '4321', 'file-mtime': '1595002920000000001ns'}
s3.put_object(Bucket=bucket, Key='in/plain', Body=b'plain')
s3.put_object(Bucket=bucket, Key='in/dir/told', Body=b'with attributes', Metadata=told)
s3.put_object(Bucket=bucket, Key='in/dir/link', Body=b'told', Metadata={'file-permissions': '0120777'})
s3.put_object(Bucket=bucket, Key='elsewhere', Body=b'not of the link')
parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
s3.upload_file(args[0], bucket, 'in/large', Config=parts)
for i in range(60): s3.put_object(Bucket=bucket, Key='in/many/%04d' % i, Body=b'%d' % i)
tell(s3.head_object(Bucket=bucket, Key='in/large')['ETag'])
";

/// What a store that keeps objects as files cannot have, or does not list as it is.
const FILL_MORE: &str = "
s3.put_object(Bucket=bucket, Key='in/blank and + and %2F and \\u00fc', Body=b'encoded')
s3.put_object(Bucket=bucket, Key='in/empty/', Body=b'')
s3.put_object(Bucket=bucket, Key='in/' + 300 * 'n', Body=b'no name of a file')
tell(None)
";

fn fill(large: &[u8], store: &Peer, scratch: &Scratch) {
    let file = scratch.path().join("large");
    fs::write(&file, large).expect("written");
    store.python(FILL_MORE, &[]);
    let etag = store.python(FILL, &[&file.to_string_lossy()]);
    assert!(etag.as_str().is_some_and(|etag| etag.ends_with("-3\"")), "{etag} is of an object in three parts");
}

/// What came of it on a mount.
fn imported(linked: &Linked, mount: &Mount, large: &[u8]) {
    let import = linked.now().expect("the MDS answers").import;
    let skipped: Vec<_> = import.first_skipped.iter().map(|s| String::from_utf8_lossy(&s.key).into_owned()).collect();
    assert_eq!(skipped, ["n".repeat(300)], "{:?}", import.first_skipped);
    assert!(fs::metadata(linked.on(mount, "empty")).expect("attributes").is_dir());
    let encoded = linked.on(mount, "blank and + and %2F and \u{fc}");
    assert_eq!(fs::read(encoded).expect("read"), b"encoded");
    files_imported(linked, mount, large);
}

fn files_imported(linked: &Linked, mount: &Mount, large: &[u8]) {
    let at = |path: &str| linked.on(mount, path);
    assert_eq!(fs::read_dir(at("many")).expect("readable").count(), 60);
    let told = fs::metadata(at("dir/told")).expect("attributes");
    assert_eq!(
        (told.mode(), told.uid(), told.gid(), told.mtime(), told.mtime_nsec()),
        (0o100640, 1234, 4321, 1_595_002_920, 1)
    );
    assert_eq!(fs::read(at("dir/link")).expect("read"), b"with attributes");
    assert_eq!(fs::read(at("many/0059")).expect("read"), b"59");
    // Lazily: a part of it, then the rest.
    let mut part = vec![0; 4096];
    fs::File::open(at("large")).expect("open").read_exact_at(&mut part, 9 * MIB as u64 + 3).expect("read");
    assert!(part == large[9 * MIB + 3..9 * MIB + 3 + 4096]);
    wait::until("a part that is durable", SOON, || (linked.hsm("large").loaded_bytes > 0).then_some(()));
    assert!(fs::read(at("large")).expect("read") == large);
}

#[test]
fn what_is_put_with_boto3_and_the_aws_cli_is_files_and_stays_so() {
    let large = pattern(1, 14 * MIB + 5);
    let fill = |moto: &Peer, scratch: &Scratch| fill(&large, moto, scratch);
    let (scratch, moto, linked) = linked("peers-import", Peer::moto, fill, |moto, settings| {
        settings.url = format!("s3://{BUCKET}/in/").parse().expect("a URL");
        settings.auto_import = ALL;
        settings.event_source = EventSource::Sqs(moto.queue());
    });
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    imported(&linked, &mount, &large);

    // What changes there changes here: each by an event of moto's.
    linked.watched();
    let other = scratch.path().join("other");
    fs::write(&other, "from the command line").expect("written");
    moto.aws(&[
        "s3",
        "cp",
        &other.to_string_lossy(),
        &format!("s3://{BUCKET}/in/dir/cli"),
        "--metadata",
        "file-owner=77",
    ]);
    moto.aws(&["s3", "mv", &format!("s3://{BUCKET}/in/plain"), &format!("s3://{BUCKET}/in/moved")]);
    let script = "
s3.put_object(Bucket=bucket, Key='in/dir/told', Body=b'other bytes, of another length')
s3.delete_object(Bucket=bucket, Key='in/many/0000')
s3.upload_file(args[0], bucket, 'in/large2')
s3.put_object(Bucket=bucket, Key='in/a b+%2F', Body=b'encoded in the event')
s3.put_object(Bucket=bucket, Key='elsewhere2', Body=b'not of the link')
tell(None)
";
    moto.python(script, &[&scratch.path().join("large").to_string_lossy()]);
    let has = |path: &str, bytes: &[u8]| {
        wait::until(path, SOON, || fs::read(at(path)).is_ok_and(|read| read == bytes).then_some(()));
    };
    let goes = |path: &str| wait::until(path, SOON, || fs::symlink_metadata(at(path)).is_err().then_some(()));
    has("dir/cli", b"from the command line");
    has("dir/told", b"other bytes, of another length");
    has("moved", b"plain");
    has("a b+%2F", b"encoded in the event");
    has("large2", &large);
    goes("plain");
    goes("many/0000");
    assert!(fs::symlink_metadata(at("elsewhere2")).is_err());
    assert_eq!(fs::metadata(at("dir/cli")).expect("attributes").uid(), 77);
    let EventSource::Sqs(url) = linked.now().expect("the MDS answers").settings.event_source else { panic!("a queue") };
    // Events that are late, come again, or are of what never was: each costs a look.
    let told = "
record = lambda name, key: {'eventName': name, 's3': {'bucket': {'name': bucket}, 'object': {'key': key}}}
keys = ['in/moved', 'in/dir/cli', 'in/never/was', 'in/plain', 'elsewhere']
for name in ['ObjectRemoved:Delete', 'ObjectCreated:Put']:
    sqs.send_message(QueueUrl=args[0], MessageBody=json.dumps({'Records': [record(name, key) for key in keys]}))
tell(None)
";
    moto.python(told, &[&url]);
    // Every event was answered for.
    let left = "
url = args[0]
names = ['ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible']
counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)['Attributes']
tell(sum(int(count) for count in counts.values()))
";
    wait::until("an empty queue", SOON, || (moto.python(left, &[&url]) == 0).then_some(()));
    has("moved", b"plain");
    has("dir/cli", b"from the command line");
    goes("plain");
    linked.cluster.assert_names_sound();
}

/// Garage tells of no changes: bucket and directory are compared.
#[test]
fn what_is_put_into_garage_is_files_and_a_comparison_finds_what_changes() {
    let large = pattern(1, 14 * MIB + 5);
    let fill = |garage: &Peer, scratch: &Scratch| fill(&large, garage, scratch);
    let (_scratch, garage, linked) = linked("garage-import", Peer::garage, fill, |_, settings| {
        settings.url = format!("s3://{BUCKET}/in/").parse().expect("a URL");
        settings.auto_import = ALL;
    });
    let mount = linked.cluster.mount();
    imported(&linked, &mount, &large);
    compared(&garage, &linked, &mount);
}

/// The same with s3s-fs, which keeps objects as files.
#[test]
fn what_is_put_into_s3s_fs_is_files_and_a_comparison_finds_what_changes() {
    let large = pattern(1, 14 * MIB + 5);
    let fill = |store: &Peer, scratch: &Scratch| {
        let file = scratch.path().join("large");
        fs::write(&file, &large).expect("written");
        store.python(FILL, &[&file.to_string_lossy()]);
    };
    let (_scratch, store, linked) = linked("s3s-fs-import", Peer::s3s_fs, fill, |_, settings| {
        settings.url = format!("s3://{BUCKET}/in/").parse().expect("a URL");
        settings.auto_import = ALL;
    });
    let mount = linked.cluster.mount();
    files_imported(&linked, &mount, &large);
    compared(&store, &linked, &mount);
}

/// No directories: it fails when it is asked for an object that is one.
#[test]
fn what_is_written_on_a_mount_is_read_from_s3s_fs_with_boto3() {
    let (_scratch, store, linked) =
        linked("s3s-fs-export", Peer::s3s_fs, |_, _| {}, |_, settings| settings.auto_export = ALL);
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    let large = pattern(2, 40 * MIB + 4097);
    fs::write(at("small"), b"small").expect("written");
    fs::write(at("large"), &large).expect("written");
    fs::write(at("none"), b"").expect("written");
    fs::set_permissions(at("small"), fs::Permissions::from_mode(0o640)).expect("chmod");
    let same = |bucket: &Bucket, key: &str| bucket.get(key).is_some_and(|o| o.md5 == md5(&at(key)));
    let mode = |bucket: &Bucket, key: &str| bucket.get(key).and_then(|o| o.meta.get("file-permissions")).cloned();
    let all = ["large", "none", "small"];
    let bucket = exported(&store, &linked, "what is new", |bucket| all.iter().all(|key| same(bucket, key)));
    assert_eq!(bucket.keys().collect::<Vec<_>>(), all);
    assert_eq!(mode(&bucket, "small").as_deref(), Some("0100640"));
    fs::write(at("small"), b"changed").expect("written");
    fs::rename(at("large"), at("moved")).expect("renamed");
    fs::remove_file(at("none")).expect("removed");
    let all = ["moved", "small"];
    let bucket = exported(&store, &linked, "what has changed", |bucket| {
        all.iter().all(|key| same(bucket, key)) && !bucket.contains_key("large") && !bucket.contains_key("none")
    });
    assert_eq!(bucket.keys().collect::<Vec<_>>(), all);
    // Released, and loaded again from where it was exported to.
    sateen_tests::cluster::lfs_ok(&[&"hsm_release", &at("moved")]);
    assert_eq!(linked.hsm("moved").loaded_bytes, 0);
    assert!(fs::read(at("moved")).expect("read") == large);
    linked.cluster.assert_names_sound();
}

/// Changes that nobody tells of.
fn compared(garage: &Peer, linked: &Linked, mount: &Mount) {
    let at = |path: &str| linked.on(mount, path);
    garage.aws(&["s3", "mv", &format!("s3://{BUCKET}/in/plain"), &format!("s3://{BUCKET}/in/moved")]);
    let script = "
s3.put_object(Bucket=bucket, Key='in/dir/told', Body=b'other bytes, of another length')
s3.delete_object(Bucket=bucket, Key='in/many/0000')
s3.put_object(Bucket=bucket, Key='elsewhere2', Body=b'not of the link')
tell(None)
";
    garage.python(script, &[]);
    linked.compare();
    assert_eq!(fs::read(at("moved")).expect("read"), b"plain");
    assert_eq!(fs::read(at("dir/told")).expect("read"), b"other bytes, of another length");
    // The mount may know a name that went elsewhere for a moment.
    for gone in ["plain", "many/0000"] {
        wait::until(gone, SOON, || fs::symlink_metadata(at(gone)).is_err().then_some(()));
    }
    assert!(fs::symlink_metadata(at("elsewhere2")).is_err());
    linked.cluster.assert_names_sound();
}

#[test]
fn what_is_written_on_a_mount_is_read_from_moto_with_boto3_and_the_aws_cli() {
    exports("peers-export", Peer::moto);
}

#[test]
fn what_is_written_on_a_mount_is_read_from_garage_with_boto3_and_the_aws_cli() {
    exports("garage-export", Peer::garage);
}

fn exports(label: &'static str, start: fn(&Path) -> Peer) {
    let fill = |moto: &Peer, _: &Scratch| {
        moto.python("s3.put_object(Bucket=bucket, Key='there', Body=b'imported'); tell(None)", &[]);
    };
    let (scratch, moto, linked) = linked(label, start, fill, |_, settings| settings.auto_export = ALL);
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    let large = pattern(2, 40 * MIB + 4097);
    fs::create_dir(at("dir")).expect("made");
    fs::write(at("dir/small"), b"small").expect("written");
    fs::write(at("large"), &large).expect("written");
    fs::write(at("blank and + and \u{fc}"), b"encoded").expect("written");
    fs::write(at("none"), b"").expect("written");
    symlink("dir/small", at("link")).expect("linked");
    fs::set_permissions(at("dir/small"), fs::Permissions::from_mode(0o640)).expect("chmod");
    std::os::unix::fs::chown(at("dir/small"), Some(1234), Some(4321)).expect("chown");
    let same = |bucket: &Bucket, key: &str| {
        let sum = md5(&at(key));
        bucket.get(key).is_some_and(|o| o.md5 == sum && o.size == fs::metadata(at(key)).expect("attributes").size())
    };
    let meta = |bucket: &Bucket, key: &str, name: &str| bucket.get(key).and_then(|o| o.meta.get(name)).cloned();
    let bucket = exported(&moto, &linked, "what is new", |bucket| {
        ["dir/small", "large", "blank and + and \u{fc}", "none"].iter().all(|key| same(bucket, key))
            && meta(bucket, "dir/small", "file-owner").as_deref() == Some("1234")
            && bucket.contains_key("link")
            && bucket.contains_key("dir/")
    });
    assert_eq!(bucket.len(), 7, "{:?}", bucket.keys());
    assert_eq!(meta(&bucket, "dir/small", "file-permissions").as_deref(), Some("0100640"));
    assert_eq!(meta(&bucket, "dir/small", "file-group").as_deref(), Some("4321"));
    assert_eq!(meta(&bucket, "link", "file-permissions").as_deref(), Some("0120777"));
    assert!(meta(&bucket, "dir/", "file-permissions").is_some_and(|mode| mode.starts_with("0040")));
    assert!(bucket["large"].etag.contains('-'), "{} is no ETag of an object in parts", bucket["large"].etag);
    assert_eq!(bucket["link"].size, 9);
    let copy = scratch.path().join("copy");
    moto.aws(&["s3", "cp", &format!("s3://{BUCKET}/large"), &copy.to_string_lossy()]);
    assert!(fs::read(&copy).expect("read") == large);
    let uploads = "tell(len(s3.list_multipart_uploads(Bucket=bucket).get('Uploads', [])))";
    assert_eq!(moto.python(uploads, &[]), 0, "no parts are left behind");

    // Bytes, modes, names; and what both sides change.
    fs::write(at("dir/small"), b"changed").expect("written");
    fs::set_permissions(at("large"), fs::Permissions::from_mode(0o600)).expect("chmod");
    fs::rename(at("there"), at("moved")).expect("renamed");
    fs::rename(at("dir"), at("other")).expect("renamed");
    fs::remove_file(at("none")).expect("removed");
    let bucket = exported(&moto, &linked, "what has changed", |bucket| {
        ["other/small", "large", "moved"].iter().all(|key| same(bucket, key))
            && meta(bucket, "large", "file-permissions").as_deref() == Some("0100600")
            && ["dir/", "dir/small", "there", "none"].iter().all(|key| !bucket.contains_key(*key))
    });
    assert_eq!(
        bucket.keys().collect::<Vec<_>>(),
        ["blank and + and \u{fc}", "large", "link", "moved", "other/", "other/small"]
    );
    moto.python("s3.put_object(Bucket=bucket, Key='moved', Body=b'theirs'); tell(None)", &[]);
    fs::write(at("moved"), b"ours!").expect("written");
    wait::until("a conflict", SOON, || (linked.conflicts().len() == 1).then_some(()));
    assert_eq!(seen(&moto)["moved"].size, 6, "what is theirs is not touched");
    linked.resolve("moved", ConflictPolicy::FilesystemWins);
    exported(&moto, &linked, "what was decided", |bucket| same(bucket, "moved"));

    // Released, and loaded again from where it was exported to.
    sateen_tests::cluster::lfs_ok(&[&"hsm_release", &at("large")]);
    assert_eq!(linked.hsm("large").loaded_bytes, 0);
    assert!(fs::read(at("large")).expect("read") == large);
    let gone = fs::read_dir(at("")).expect("readable").map(|entry| entry.expect("an entry").path());
    gone.for_each(|path| {
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed")
    });
    exported(&moto, &linked, "deletions", BTreeMap::is_empty);
    let listed = moto.aws(&["s3", "ls", "--recursive", &format!("s3://{BUCKET}")]);
    assert_eq!(listed.stdout.trim(), "");
    linked.cluster.assert_names_sound();
}

/// Which conditions a store looks at: for each 412, or 200 if it does as if there were none.
fn conditions(store: &Peer) -> BTreeMap<String, u64> {
    let script = "
other = '\"00000000000000000000000000000000\"'
def fresh(): return s3.put_object(Bucket=bucket, Key='k', Body=b'one')['ETag']
def outcome(do):
    fresh()
    try: do()
    except ClientError as e: return e.response['ResponseMetadata']['HTTPStatusCode']
    return 200
def copy(**more): s3.copy_object(Bucket=bucket, Key='k', CopySource=bucket + '/source', Metadata={'a': 'b'},
                                 MetadataDirective='REPLACE', **more)
def parts(**more):
    id = s3.create_multipart_upload(Bucket=bucket, Key='k')['UploadId']
    tag = s3.upload_part(Bucket=bucket, Key='k', UploadId=id, PartNumber=1, Body=b'part')['ETag']
    s3.complete_multipart_upload(Bucket=bucket, Key='k', UploadId=id,
                                 MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': tag}]}, **more)
s3.put_object(Bucket=bucket, Key='source', Body=b'source')
tell({
    'get match': outcome(lambda: s3.get_object(Bucket=bucket, Key='k', Range='bytes=0-1', IfMatch=other)),
    'put match': outcome(lambda: s3.put_object(Bucket=bucket, Key='k', Body=b'two', IfMatch=other)),
    'put none': outcome(lambda: s3.put_object(Bucket=bucket, Key='k', Body=b'two', IfNoneMatch='*')),
    'delete match': outcome(lambda: s3.delete_object(Bucket=bucket, Key='k', IfMatch=other)),
    'complete match': outcome(lambda: parts(IfMatch=other)),
    'complete none': outcome(lambda: parts(IfNoneMatch='*')),
    'copy match': outcome(lambda: copy(IfMatch=other)),
    'copy none': outcome(lambda: copy(IfNoneMatch='*')),
    'copy source match': outcome(lambda: copy(CopySourceIfMatch=other)),
})
";
    let told = store.python(script, &[]);
    told.as_object().expect("outcomes").iter().map(|(k, v)| (k.clone(), v.as_u64().expect("a status"))).collect()
}

#[track_caller]
fn assert_conditions(told: &BTreeMap<String, u64>, kept: &[&str], ignored: &[&str]) {
    let of = |names: &[&str], status: u64| names.iter().map(|name| ((*name).to_owned(), status)).collect::<Vec<_>>();
    assert_eq!(*told, [of(kept, 412), of(ignored, 200)].concat().into_iter().collect());
}

/// docs/repositories.md says what this says.
#[test]
fn the_conditions_that_moto_and_garage_know() {
    let scratch = Scratch::new("peers-conditions");
    let kept = ["get match", "put match", "put none", "delete match", "complete none"];
    let ignored = ["complete match", "copy match", "copy none", "copy source match"];
    assert_conditions(&conditions(&Peer::moto(scratch.path())), &kept, &ignored);
    let kept = ["get match", "copy source match"];
    let ignored =
        ["put match", "put none", "delete match", "complete match", "complete none", "copy match", "copy none"];
    assert_conditions(&conditions(&Peer::garage(scratch.path())), &kept, &ignored);
}
