//! Programs people use, on a mount: git, tar, make, SQLite, rsync, fio, and the everyday ones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sateen_tests::command::{Done, sh};
use sateen_tests::{Cluster, ClusterSpec, Mount};

/// Longest one program may take on two cores.
const PROGRAM: Duration = Duration::from_secs(400);

/// Starts a cluster and mounts it. The mount comes last in the pair: variables are dropped in reverse order, and a mount
/// whose servers are gone cannot be unmounted in order.
fn mounted(label: &'static str) -> (Cluster, Mount) {
    let cluster = Cluster::start(ClusterSpec::new(label));
    let mount = cluster.mount();
    (cluster, mount)
}

#[track_caller]
fn script(text: &str, args: &[&dyn AsRef<std::ffi::OsStr>]) -> Done {
    sh(text, args, PROGRAM)
}

#[test]
fn git_clones_commits_repacks_and_finds_no_fault() {
    let (mut cluster, mut mount) = mounted("git");
    // A repository with real content, made on a local disk.
    let origin = cluster.dir().join("origin");
    script(
        r#"
        export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.org GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@example.org
        git init -q -b main "$1"; cd "$1"
        cp -rL /usr/include/linux . ; git add -A; git commit -q -m 'one'
        cp -rL /usr/include/c++ . ; git rm -rq linux/netfilter; git add -A; git commit -q -m 'two'
        git tag v1"#,
        &[&origin],
    );
    let clone = mount.join("clone");
    script(
        r#"
        export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.org GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@example.org
        git clone -q --no-local "$1" "$2"
        cd "$2"
        git fsck --strict --full
        test -z "$(git status --porcelain)"
        git checkout -q -b work v1~1
        for f in linux/*.h; do echo '/* changed */' >> "$f"; done
        git commit -qam 'three'
        git checkout -q main
        git merge -q -m 'four' work
        git gc -q
        git fsck --strict --full"#,
        &[&origin, &clone],
    );
    mount.remount();
    script(r#"cd "$1"; git fsck --strict --full; test -z "$(git status --porcelain)""#, &[&clone]);
    cluster.assert_runs();
}

/// The C sources of lz4, which our RocksDB is built with, from cargo's registry.
fn lz4_sources() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cargo"));
    let registries = std::fs::read_dir(home.join("registry/src")).expect("cargo's registry").flatten();
    let mut crates = registries.flat_map(|r| std::fs::read_dir(r.path()).expect("a registry")).flatten();
    let found = crates.find(|c| c.file_name().to_string_lossy().starts_with("lz4-sys-"));
    found.expect("lz4-sys, a dependency, is in the registry").path().join("liblz4")
}

#[test]
fn a_c_project_is_unpacked_built_in_parallel_and_works() {
    let (mut cluster, mount) = mounted("make");
    let archive = cluster.dir().join("lz4.tar.gz");
    script(r#"tar -C "$1" -czf "$2" ."#, &[&lz4_sources(), &archive]);
    script(
        r#"
        mkdir "$2"; cd "$2"; tar -xzf "$1"
        make -j4 -C lib >/dev/null
        make -j4 -C programs >/dev/null
        make -j4 -C tests fullbench frametest datagen >/dev/null
        cp /usr/bin/bash input
        programs/lz4 -q -9 input input.lz4
        programs/lz4 -q -d input.lz4 output
        cmp input output
        test -x programs/lz4
        make -s -C programs clean"#,
        &[&archive, &mount.join("build")],
    );
    cluster.assert_runs();
}

/// Writers and readers of one database in several processes, in rollback and in WAL mode, then an integrity check.
const SQLITE: &str = r#"
import sqlite3, sys, multiprocessing, random

def work(path, who):
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    rng = random.Random(who)
    for i in range(150):
        db.execute('begin immediate')
        db.execute('insert into t(who, n, body) values (?, ?, ?)', (who, i, rng.randbytes(rng.randrange(3000))))
        db.execute('update total set n = n + 1')
        if i % 10 == 9:
            db.execute('delete from t where who = ? and n = ?', (who, i - 5))
            db.execute('update total set n = n - 1')
        db.execute('commit')
    db.close()

for mode in ['delete', 'wal']:
    path = sys.argv[1] + '/' + mode + '.db'
    db = sqlite3.connect(path)
    assert db.execute('pragma journal_mode=' + mode).fetchone()[0] == mode
    db.execute('pragma synchronous=full')
    db.executescript('create table t(who int, n int, body blob); create index i on t(who, n);'
                     'create table total(n int); insert into total values (0);')
    workers = [multiprocessing.Process(target=work, args=(path, w)) for w in range(3)]
    [w.start() for w in workers]
    [w.join() for w in workers]
    assert all(w.exitcode == 0 for w in workers), 'a worker failed'
    assert db.execute('pragma integrity_check').fetchone()[0] == 'ok'
    count, total = db.execute('select count(*) from t').fetchone()[0], db.execute('select n from total').fetchone()[0]
    assert count == total == 3 * (150 - 15), (count, total)
    db.execute('vacuum')
    assert db.execute('pragma integrity_check').fetchone()[0] == 'ok'
    db.close()
"#;

#[test]
fn sqlite_keeps_its_integrity_in_rollback_and_wal_mode() {
    let (mut cluster, mut mount) = mounted("sqlite");
    let program = cluster.dir().join("work.py");
    std::fs::write(&program, SQLITE).expect("write");
    script(r#"python3 "$1" "$2""#, &[&program, &mount.path()]);
    mount.remount();
    let check = r#"
import sqlite3, sys
for mode in ['delete', 'wal']:
    assert sqlite3.connect(sys.argv[1] + '/' + mode + '.db').execute('pragma integrity_check').fetchone()[0] == 'ok'
"#;
    script(r#"python3 -c "$1" "$2""#, &[&check, &mount.path()]);
    cluster.assert_runs();
}

#[test]
fn a_second_rsync_transfers_nothing() {
    let (mut cluster, mut mount) = mounted("rsync");
    let to = mount.join("copy");
    let source = Path::new("/usr/include/linux/");
    script(r#"rsync -aH "$1" "$2""#, &[&source, &to]);
    let again = script(r#"rsync -aH --itemize-changes --stats "$1" "$2""#, &[&source, &to]).stdout;
    let transferred = again.lines().find(|l| l.starts_with("Number of regular files transferred:"));
    assert_eq!(transferred, Some("Number of regular files transferred: 0"), "{again}");
    let changes: Vec<&str> = again.lines().take_while(|l| !l.is_empty()).collect();
    assert!(changes.is_empty(), "{changes:?}");
    mount.remount();
    let by_checksum = script(r#"rsync -aHc --itemize-changes "$1" "$2""#, &[&source, &to]).stdout;
    assert_eq!(by_checksum, "");
    cluster.assert_runs();
}

#[test]
fn tar_mv_find_du_cp_and_rm_do_what_they_do_elsewhere() {
    let (mut cluster, mount) = mounted("everyday");
    script(
        r#"
        cd "$1"
        tar -C /usr/share -cf zoneinfo.tar zoneinfo
        mkdir a; tar -C a -xf zoneinfo.tar
        diff -r --no-dereference /usr/share/zoneinfo a/zoneinfo
        tar -df zoneinfo.tar -C a

        mv a/zoneinfo b; test ! -e a/zoneinfo
        rmdir a
        diff -r --no-dereference /usr/share/zoneinfo b
        test "$(find b -type f | wc -l)" = "$(find /usr/share/zoneinfo -type f | wc -l)"
        test "$(find b -type l | wc -l)" = "$(find /usr/share/zoneinfo -type l | wc -l)"
        test "$(find b -name 'Ber*' | wc -l)" = "$(find /usr/share/zoneinfo -name 'Ber*' | wc -l)"

        cp -al b c; test "$(stat -c %i b/UTC)" = "$(stat -c %i c/UTC)"
        rm -rf b; diff -r --no-dereference /usr/share/zoneinfo c
        du -s c >/dev/null; df . >/dev/null
        dd if=/dev/zero of=big bs=1M count=40 conv=fsync status=none
        truncate -s 10M big; test "$(stat -c %s big)" = 10485760
        cp --sparse=always big sparse; cmp big sparse
        rm -rf c big sparse zoneinfo.tar
        test -z "$(ls -A)""#,
        &[&mount.path()],
    );
    cluster.assert_runs();
}

#[test]
fn fio_verifies_random_writes_through_every_path() {
    let (mut cluster, mount) = mounted("fio");
    for (name, engine, direct, sync) in
        [("buffered", "psync", 0, "--fsync=64"), ("direct", "psync", 1, ""), ("mapped", "mmap", 0, "")]
    {
        script(
            r#"cd "$1"; fio --minimal --name="$2" --filename="$2" --ioengine="$3" --direct="$4" $5 --rw=randwrite \
               --bsrange=4k-256k --blockalign=4k --size=48m --io_size=64m --verify=crc32c --verify_fatal=1 \
               --do_verify=1 --randseed=7 --norandommap=0 >/dev/null"#,
            &[&mount.path(), &name, &engine, &direct.to_string(), &sync],
        );
    }
    cluster.assert_runs();
}
