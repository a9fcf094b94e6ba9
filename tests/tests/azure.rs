//! Azure Blob Storage as a repository, as far as Azurite is like it, looked at from outside with Azure's own client: import, lazy load,
//! comparison, export in one piece and in blocks, renames, modes, deletions, conflicts.
//!
//! Needs what `scripts/test-tools.sh` installs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use sateen_tests::azurite::{ACCOUNT, Azurite, CONTAINER};
use sateen_tests::repository::Linked;
use sateen_tests::rng::pattern;
use sateen_tests::s3::Pace;
use sateen_tests::scratch::Scratch;
use sateen_tests::{run_ok, wait};
use sateen_types::repository::{
    ConflictPolicy, RepositoryChange, RepositoryEvents, RepositorySettings, RepositoryState,
};

const MIB: usize = 1 << 20;
/// Longest a change may take to come to the other side on a loaded machine.
const SOON: Duration = Duration::from_secs(90);
const ALL: RepositoryEvents = RepositoryEvents { created: true, changed: true, deleted: true };
/// Small blobs: more than two pages of a listing.
const MANY: usize = 2100;

/// What is in the container before it is linked.
const FILL: &str = "
from concurrent.futures import ThreadPoolExecutor
told = {'file_permissions': '0100640', 'file_owner': '1234', 'file_group': '4321', 'file_mtime': '1595002920000000001ns'}
put('in/plain', b'plain', metadata={'colour': 'red'}, content_settings=ContentSettings(content_type='text/plain'))
put('in/dir/told', b'with attributes', metadata=told)
put('in/dir/link', b'told', metadata={'file_permissions': '0120777'})
put('in/empty/', b'')
put('in/blank and + and %2F and \\u00fc', b'encoded')
put('in/' + 300 * 'n', b'no name of a file')
put('elsewhere', b'not of the link')
put('in/large', open(args[0], 'rb'), metadata={'file_owner': '77'})
with ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda i: put('in/many/%04d' % i, b'%d' % i), range(int(args[1]))))
tell(blobs.get_blob_client('in/large').get_block_list('committed')[0].__len__())
";

/// What Azure's client sees: size, ETag, metadata and kind of each blob, and the MD5 of what it reads.
const SEEN: &str = "
import hashlib
found = {}
for b in blobs.list_blobs(include=['metadata']):
    if b.name.startswith('in/many/'): continue
    body = blobs.download_blob(b.name).readall()
    found[b.name] = {'size': len(body), 'etag': b.etag, 'meta': b.metadata or {}, 'md5': hashlib.md5(body).hexdigest(),
                     'type': b.content_settings.content_type}
tell(found)
";

#[derive(Debug)]
struct Seen {
    size: u64,
    kind: String,
    meta: BTreeMap<String, String>,
    md5: String,
}

type Blobs = BTreeMap<String, Seen>;

fn seen(azurite: &Azurite) -> Blobs {
    let text = |of: &serde_json::Value| of.as_str().expect("text").to_owned();
    let one = |o: &serde_json::Value| Seen {
        size: o["size"].as_u64().expect("a number"),
        kind: text(&o["type"]),
        meta: o["meta"].as_object().expect("metadata").iter().map(|(k, v)| (k.clone(), text(v))).collect(),
        md5: text(&o["md5"]),
    };
    let all = azurite.python(SEEN, &[]);
    all.as_object().expect("blobs").iter().map(|(key, o)| (key.clone(), one(o))).collect()
}

fn md5(path: &Path) -> String {
    let done = run_ok(std::process::Command::new("md5sum").arg(path), SOON);
    done.stdout.split_whitespace().next().expect("a sum").to_owned()
}

/// An emulator, and a link to its container after `fill` had its way with it. To be dropped the other way round.
#[track_caller]
fn linked(
    label: &'static str,
    fill: impl FnOnce(&Azurite, &Scratch),
    settings: impl FnOnce(&mut RepositorySettings),
) -> (Scratch, Azurite, Linked) {
    let scratch = Scratch::new(label);
    let azurite = Azurite::start(scratch.path());
    fill(&azurite, &scratch);
    let change = |given: &mut RepositorySettings| {
        given.endpoint = azurite.endpoint();
        given.url = format!("az://{CONTAINER}/").parse().expect("a URL");
        settings(given);
    };
    let linked = Linked::begin_with(label, Pace::default(), change, |_| {});
    linked.imported();
    (scratch, azurite, linked)
}

/// Waits until the container is as wanted and nothing is left to be done.
#[track_caller]
fn exported(azurite: &Azurite, linked: &Linked, what: &str, wanted: impl Fn(&Blobs) -> bool) -> Blobs {
    let mut last = None;
    let done = wait::try_until(SOON, || {
        if linked.now()?.export.queued > 0 {
            return None;
        }
        last = Some(seen(azurite));
        last.as_ref().is_some_and(&wanted).then_some(())
    });
    match (done, last) {
        (Some(()), Some(last)) => last,
        (_, last) => panic!("{what} did not happen: {last:#?}, {:?}", linked.now()),
    }
}

#[test]
fn blobs_are_files_and_a_comparison_finds_what_changes() {
    let large = pattern(1, 14 * MIB + 5);
    let fill = |azurite: &Azurite, scratch: &Scratch| {
        let file = scratch.path().join("large");
        fs::write(&file, &large).expect("written");
        let blocks = azurite.python(FILL, &[&file.to_string_lossy(), &MANY.to_string()]);
        assert_eq!(blocks, 4, "a blob of several blocks");
    };
    let (_scratch, azurite, linked) = linked("azure-import", fill, |settings| {
        settings.url = format!("az://{CONTAINER}/in/").parse().expect("a URL");
        settings.auto_import = ALL;
    });
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    let import = linked.now().expect("the MDS answers").import;
    let skipped: Vec<_> = import.first_skipped.iter().map(|s| String::from_utf8_lossy(&s.key).into_owned()).collect();
    assert_eq!(skipped, ["n".repeat(300)], "{:?}", import.first_skipped);
    assert_eq!(import.objects as usize, MANY + 7);
    assert_eq!(fs::read_dir(at("many")).expect("readable").count(), MANY);
    assert!(fs::metadata(at("empty")).expect("attributes").is_dir());
    assert_eq!(fs::read(at("blank and + and %2F and \u{fc}")).expect("read"), b"encoded");
    let told = fs::metadata(at("dir/told")).expect("attributes");
    assert_eq!(
        (told.mode(), told.uid(), told.gid(), told.mtime(), told.mtime_nsec()),
        (0o100640, 1234, 4321, 1_595_002_920, 1)
    );
    assert_eq!(fs::read(at("dir/link")).expect("read"), b"with attributes");
    assert_eq!(fs::read(at("many/2099")).expect("read"), b"2099");
    // Lazily: a part of it, then the rest.
    assert_eq!(linked.hsm("large").loaded_bytes, 0);
    let mut part = vec![0; 4096];
    fs::File::open(at("large")).expect("open").read_exact_at(&mut part, 9 * MIB as u64 + 3).expect("read");
    assert!(part == large[9 * MIB + 3..9 * MIB + 3 + 4096]);
    assert!(fs::read(at("large")).expect("read") == large);

    let script = "
put('in/dir/told', b'other bytes, of another length')
put('in/moved', b'plain')
blobs.delete_blob('in/plain')
blobs.delete_blob('in/many/0000')
put('elsewhere2', b'not of the link')
tell(None)
";
    azurite.python(script, &[]);
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
fn what_is_written_on_a_mount_is_read_from_azurite_with_azures_client() {
    let fill = |azurite: &Azurite, _: &Scratch| {
        let script = "
put('there', b'imported', metadata={'colour': 'red'}, content_settings=ContentSettings(content_type='text/plain'))
tell(None)
";
        azurite.python(script, &[]);
    };
    let (_scratch, azurite, linked) = linked("azure-export", fill, |settings| settings.auto_export = ALL);
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
    let same = |blobs: &Blobs, key: &str| {
        let sum = md5(&at(key));
        blobs.get(key).is_some_and(|b| b.md5 == sum && b.size == fs::metadata(at(key)).expect("attributes").size())
    };
    let meta = |blobs: &Blobs, key: &str, name: &str| blobs.get(key).and_then(|b| b.meta.get(name)).cloned();
    let all = ["dir/small", "large", "blank and + and \u{fc}", "none"];
    let blobs = exported(&azurite, &linked, "what is new", |blobs| {
        all.iter().all(|key| same(blobs, key))
            && meta(blobs, "dir/small", "file_owner").as_deref() == Some("1234")
            && blobs.contains_key("link")
            && blobs.contains_key("dir/")
    });
    assert_eq!(blobs.len(), 7, "{:?}", blobs.keys());
    assert_eq!(meta(&blobs, "dir/small", "file_permissions").as_deref(), Some("0100640"));
    assert_eq!(meta(&blobs, "link", "file_permissions").as_deref(), Some("0120777"));
    assert!(meta(&blobs, "dir/", "file_permissions").is_some_and(|mode| mode.starts_with("0040")));
    assert_eq!((blobs["link"].size, blobs["link"].kind.as_str()), (9, "application/symlink; charset=utf-8"));

    // Bytes, modes, names; and what both sides change. What was there before keeps what it has.
    fs::write(at("dir/small"), b"changed").expect("written");
    fs::set_permissions(at("large"), fs::Permissions::from_mode(0o600)).expect("chmod");
    fs::rename(at("there"), at("moved")).expect("renamed");
    fs::rename(at("dir"), at("other")).expect("renamed");
    fs::remove_file(at("none")).expect("removed");
    let blobs = exported(&azurite, &linked, "what has changed", |blobs| {
        ["other/small", "large", "moved"].iter().all(|key| same(blobs, key))
            && meta(blobs, "large", "file_permissions").as_deref() == Some("0100600")
            && ["dir/", "dir/small", "there", "none"].iter().all(|key| !blobs.contains_key(*key))
    });
    assert_eq!(
        blobs.keys().collect::<Vec<_>>(),
        ["blank and + and \u{fc}", "large", "link", "moved", "other/", "other/small"]
    );
    assert_eq!(meta(&blobs, "moved", "colour").as_deref(), Some("red"));
    assert_eq!(blobs["moved"].kind, "text/plain");
    azurite.python("put('moved', b'theirs'); tell(None)", &[]);
    fs::write(at("moved"), b"ours!").expect("written");
    wait::until("a conflict", SOON, || (linked.conflicts().len() == 1).then_some(()));
    assert_eq!(seen(&azurite)["moved"].size, 6, "what is theirs is not touched");
    linked.resolve("moved", ConflictPolicy::FilesystemWins);
    exported(&azurite, &linked, "what was decided", |blobs| same(blobs, "moved"));

    // Released, and loaded again from where it was exported to; and what has no metadata of ours is not deleted unseen.
    sateen_tests::cluster::lfs_ok(&[&"hsm_release", &at("large")]);
    assert_eq!(linked.hsm("large").loaded_bytes, 0);
    assert!(fs::read(at("large")).expect("read") == large);

    // With a signature instead of the key: also what the store reads itself.
    let sas = "
from datetime import datetime, timedelta, timezone
may = ContainerSasPermissions(read=True, list=True, create=True, write=True, delete=True)
until = datetime.now(timezone.utc) + timedelta(hours=1)
tell(generate_container_sas(account, container, account_key=key, permission=may, expiry=until))
";
    let signature = azurite.python(sas, &[]);
    let signature = signature.as_str().expect("a query");
    linked.s3.set_keys(&format!("azure_storage_account = {ACCOUNT}\nazure_storage_sas_token = {signature}\n"));
    // Connections with the keys of before are not used for another region.
    linked.change(RepositoryChange { region: Some("another".to_owned()), ..RepositoryChange::default() });
    fs::write(at("signed"), b"with a signature").expect("written");
    fs::rename(at("large"), at("huge")).expect("renamed");
    exported(&azurite, &linked, "what is done with a signature", |blobs| {
        same(blobs, "signed") && same(blobs, "huge") && !blobs.contains_key("large")
    });
    sateen_tests::cluster::lfs_ok(&[&"hsm_release", &at("huge")]);
    assert!(fs::read(at("huge")).expect("read") == large);
    linked.compare();
    assert_eq!(linked.now().expect("the MDS answers").state, RepositoryState::Available);

    azurite.python("put('link', b'another target'); tell(None)", &[]);
    fs::remove_file(at("link")).expect("removed");
    wait::until("another conflict", SOON, || (linked.conflicts().len() == 1).then_some(()));
    assert!(seen(&azurite).contains_key("link"));
    linked.resolve("link", ConflictPolicy::FilesystemWins);
    for path in ["blank and + and \u{fc}", "huge", "moved", "other/small", "signed"] {
        fs::remove_file(at(path)).expect("removed");
    }
    fs::remove_dir(at("other")).expect("removed");
    exported(&azurite, &linked, "deletions", BTreeMap::is_empty);
    linked.cluster.assert_names_sound();
}
