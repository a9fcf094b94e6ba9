//! Names that are looked up in a row come in pages, walks are listed ahead, and what is answered from those is right.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sateen_client::{Client, NewFile, Options};
use sateen_tests::rpc::block_on;
use sateen_tests::{Cluster, ClusterSpec, Pair};
use sateen_types::op::{Access, DirEntry};
use sateen_types::{Attr, Credential, Fid, FileType, Name};

/// Files of a directory.
const FILES: u32 = 2_000;
/// Directories in which the same is tried: pages come in their own time.
const ROUNDS: u32 = 8;
/// Long enough for any test.
const TRUSTED: Duration = Duration::from_secs(600);
const LONG: [&str; 2] = ["attr_timeout=600", "entry_timeout=600"];

fn name(number: u32) -> Name {
    Name::parse(format!("f{number:04}").as_bytes()).expect("valid")
}

async fn connect(cluster: &Cluster, change: impl FnOnce(&mut Options)) -> Client {
    let mut options = Options::default();
    change(&mut options);
    Client::connect(&cluster.source().parse().expect("a source"), options).await.expect("connects")
}

/// A directory with files that differ in their modes.
async fn make_files(client: &Client) -> Fid {
    let root = Credential::ROOT;
    let dir = Name::parse(b"d").expect("valid");
    let dir = client.mkdir(&root, client.root(), &dir, 0o755).await.expect("made").fid;
    for number in 0..FILES {
        let mode = (0o400 + number % 0o400).into();
        let (name, access) = (name(number), Access::WRITE);
        let new = NewFile { parent: dir, name, mode, exclusive: true, access, layout: None };
        client.create(&root, new).await.expect("made").file.close().await.expect("closed");
    }
    client.sync().await.expect("told");
    dir
}

/// Attributes of all names, and how many of them were there before they were asked for.
async fn look_at_all(client: &Client, dir: Fid) -> (Vec<Attr>, u32) {
    let (mut attrs, mut ahead) = (Vec::new(), 0);
    for number in 0..FILES {
        let looked = client.look_up(&Credential::ROOT, dir, &name(number)).await.expect("there");
        ahead += u32::from(!looked.age.is_zero());
        attrs.push(looked.attr);
    }
    (attrs, ahead)
}

#[test]
fn names_in_a_row_are_known_before_they_are_asked_for_and_as_the_mds_knows_them() {
    let cluster = Cluster::start(ClusterSpec::new("statahead"));
    block_on(async {
        let maker = connect(&cluster, |options| options.write_back_names = true).await;
        let dir = make_files(&maker).await;
        maker.close().await.expect("closes");
        let plain = connect(&cluster, |_| ()).await;
        let (right, none) = look_at_all(&plain, dir).await;
        assert_eq!(none, 0, "nothing is fetched unless it is asked for");
        let reader = connect(&cluster, |options| options.attributes_ahead = TRUSTED).await;
        let (attrs, ahead) = look_at_all(&reader, dir).await;
        assert_eq!(attrs, right);
        assert!(ahead > 0, "pages were fetched");
        for client in [plain, reader] {
            client.close().await.expect("closes");
        }
    });
}

/// A directory with 60 files, of which the second mount has looked at the first ones: the others are on their way or there.
fn looked_at(pair: &Pair, round: u32) -> impl Fn(bool, u32) -> PathBuf {
    let dir = format!("d{round}");
    fs::create_dir(pair.a.join(&dir)).expect("mkdir");
    let of = [pair.a.join(&dir), pair.b.join(&dir)];
    let path = move |ours: bool, number: u32| of[usize::from(!ours)].join(format!("f{number}"));
    (0..60).for_each(|number| fs::write(path(true, number), "old").expect("write"));
    (0..10).for_each(|number| assert_eq!(fs::metadata(path(false, number)).expect("stat").size(), 3));
    path
}

#[test]
fn what_another_mount_replaces_or_removes_is_opened_or_missed_all_the_same() {
    let pair = Pair::with("statahead-theirs", TRUSTED, &LONG);
    for round in 0..ROUNDS {
        let path = looked_at(&pair, round);
        for number in 10..60 {
            if number % 2 == 0 {
                fs::write(path(true, 100), "new").expect("write");
                fs::rename(path(true, 100), path(true, number)).expect("rename");
            } else {
                fs::remove_file(path(true, number)).expect("unlink");
            }
        }
        for number in 10..60 {
            match number % 2 {
                0 => assert_eq!(fs::read_to_string(path(false, number)).expect("read"), "new"),
                _ => assert_eq!(File::open(path(false, number)).expect_err("gone").kind(), ErrorKind::NotFound),
            }
        }
    }
}

#[test]
fn what_this_mount_changes_is_seen_at_once_however_long_attributes_are_trusted() {
    let pair = Pair::with("statahead-ours", TRUSTED, &LONG);
    for round in 0..ROUNDS {
        let path = looked_at(&pair, round);
        let ours = |number: u32| path(false, number);
        for number in (10..60).step_by(5) {
            fs::set_permissions(ours(number), Permissions::from_mode(0o640)).expect("chmod");
            assert_eq!(fs::metadata(ours(number)).expect("stat").mode() & 0o777, 0o640);
            fs::remove_file(ours(number + 1)).expect("unlink");
            assert_eq!(fs::metadata(ours(number + 1)).expect_err("gone").kind(), ErrorKind::NotFound);
            fs::rename(ours(number + 2), ours(number + 1)).expect("rename");
            assert_eq!(fs::metadata(ours(number + 2)).expect_err("moved").kind(), ErrorKind::NotFound);
            let mut file = OpenOptions::new().append(true).open(ours(number + 3)).expect("open");
            file.write_all(b"-and-new").expect("write");
            assert_eq!(fs::metadata(ours(number + 3)).expect("stat").size(), 11);
            fs::hard_link(ours(number + 4), ours(number + 100)).expect("link");
            assert_eq!(fs::metadata(ours(number + 4)).expect("stat").nlink(), 2);
        }
    }
}

/// Directories of a tree, and files in each.
const TREE_DIRS: [u32; 3] = [4, 5, 3];
const TREE_FILES: u32 = 3;

/// A tree below `dir`.
fn make_tree(dir: &Path, levels: &[u32]) {
    fs::create_dir(dir).expect("mkdir");
    (0..TREE_FILES).for_each(|number| fs::write(dir.join(format!("f{number}")), "old").expect("write"));
    if let Some((dirs, below)) = levels.split_first() {
        (0..*dirs).for_each(|number| make_tree(&dir.join(format!("d{number}")), below));
    }
}

/// Every directory below `dir` in the order of a walk, each with what is in it; and how many were known before they were asked for.
async fn walk(client: &Client, dir: Fid) -> (Vec<(Fid, Vec<DirEntry>)>, usize) {
    let (mut found, mut ahead, mut todo) = (Vec::new(), 0, vec![dir]);
    while let Some(dir) = todo.pop() {
        let page = client.read_dir(&Credential::ROOT, dir, 0, 100, true).await.expect("listed");
        assert!(page.end);
        ahead += usize::from(!page.age.is_zero());
        let below = page.entries.iter().filter(|entry| entry.file_type == FileType::Directory);
        todo.extend(below.map(|entry| entry.fid).rev());
        found.push((dir, page.entries));
    }
    (found, ahead)
}

#[test]
fn a_walk_is_listed_ahead_and_sees_what_the_mds_knows() {
    let cluster = Cluster::start(ClusterSpec::new("walk"));
    let mount = cluster.mount();
    make_tree(&mount.join("tree"), &TREE_DIRS);
    drop(mount);
    block_on(async {
        let plain = connect(&cluster, |_| ()).await;
        let name = Name::parse(b"tree").expect("valid");
        let tree = plain.lookup(&Credential::ROOT, plain.root(), &name).await.expect("there").fid;
        let (right, none) = walk(&plain, tree).await;
        assert_eq!(none, 0, "nothing is fetched unless it is asked for");
        let reader = connect(&cluster, |options| options.attributes_ahead = TRUSTED).await;
        let (found, ahead) = walk(&reader, tree).await;
        assert_eq!(found, right);
        assert!(ahead > found.len() / 4, "{ahead} of {} directories were listed ahead", found.len());
        for client in [plain, reader] {
            client.close().await.expect("closes");
        }
    });
}

#[test]
fn a_walk_sees_at_once_what_this_mount_changes_in_directories_that_it_comes_to() {
    let cluster = Cluster::start(ClusterSpec::new("walk-ours"));
    // What a mount holds is not listed ahead for others.
    let (theirs, ours) = (cluster.mount_with(&["dirsync"]), cluster.mount_with(&LONG));
    for round in 0..ROUNDS {
        let tree = format!("tree{round}");
        make_tree(&theirs.join(&tree), &[40]);
        let dir = |number: u32| ours.join(&tree).join(format!("d{number}"));
        let names = |dir: PathBuf| {
            let mut names: Vec<_> =
                fs::read_dir(dir).expect("opened").map(|e| e.expect("listed").file_name().into_string()).collect();
            names.sort();
            names.into_iter().map(|name| name.expect("a name")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(fs::read_dir(ours.join(&tree)).expect("opened").count(), 43);
        (0..6).for_each(|number| assert_eq!(names(dir(number)), "f0 f1 f2"));
        // The next ones are there or on their way.
        for number in 6..40 {
            let dir = dir(number);
            match number % 4 {
                0 => fs::write(dir.join("new"), "new").expect("write"),
                1 => fs::remove_file(dir.join("f1")).expect("unlink"),
                2 => fs::rename(dir.join("f0"), dir.join("f9")).expect("rename"),
                _ => {
                    fs::set_permissions(dir.join("f0"), Permissions::from_mode(0o640)).expect("chmod");
                    let mut file = OpenOptions::new().append(true).open(dir.join("f1")).expect("open");
                    file.write_all(b"-and-new").expect("write");
                    fs::create_dir(dir.join("below")).expect("mkdir");
                    fs::write(dir.join("below/f"), "new").expect("write");
                }
            }
        }
        for number in 6..40 {
            let dir = dir(number);
            let expected = match number % 4 {
                0 => "f0 f1 f2 new",
                1 => "f0 f2",
                2 => "f1 f2 f9",
                _ => {
                    assert_eq!(fs::metadata(dir.join("f0")).expect("stat").mode() & 0o777, 0o640);
                    assert_eq!(fs::metadata(dir.join("f1")).expect("stat").size(), 11);
                    assert_eq!(names(dir.join("below")), "f");
                    "below f0 f1 f2"
                }
            };
            assert_eq!(names(dir), expected, "directory {number} of round {round}");
        }
    }
}
