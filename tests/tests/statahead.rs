//! Names that are looked up in a row come in pages, and what is answered from those is right.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use sateen_client::{Client, NewFile, Options};
use sateen_tests::rpc::block_on;
use sateen_tests::{Cluster, ClusterSpec, Pair};
use sateen_types::op::Access;
use sateen_types::{Attr, Credential, Fid, Name};

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
