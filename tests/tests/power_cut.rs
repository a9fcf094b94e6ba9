//! Power cuts: all servers live on one disk, whose file system is shut down by force in the middle of work.
//!
//! What was fsynced is there afterwards, every other chunk is its old or its new version as a whole, and the servers start
//! again. The last two show that these tests can see: with the syncs of one kind of server switched off they fail.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use sateen_tests::disk::{DiskSpec, FileSystem};
use sateen_tests::ledger::{Kind, Ledger, Writer};
use sateen_tests::rng::seeded;
use sateen_tests::size::amount;
use sateen_tests::{Cluster, ClusterSpec, Mount};

/// Power cuts in CI, and all.
const CUTS: (u64, u64) = (2, 50);

/// Size of the disk; its image is sparse.
const DISK_BYTES: u64 = 3 << 30;

/// Longest the writers may take for a few steps.
const STEPS: Duration = Duration::from_secs(120);

/// Cuts within which a cluster that does not sync must have lost something.
const BLIND_CUTS: u64 = 3;

fn spec(label: &'static str, file_system: FileSystem) -> ClusterSpec {
    ClusterSpec { disk: Some(DiskSpec { file_system, bytes: DISK_BYTES }), ..ClusterSpec::new(label) }
}

/// What a cut finds under way.
struct Work {
    writers: [Writer; 2],
}

impl Work {
    /// Starts both kinds of writers, and gives them time to have been promised something.
    fn start(mount: &Mount, round: u64, rng: &mut StdRng) -> Work {
        let writer = |kind, name: &str| {
            Writer::start(Path::new(env!("CARGO_BIN_EXE_ledger-writer")), kind, mount.join(format!("{name}-{round}")))
        };
        let work = Work { writers: [writer(Kind::Files, "files"), writer(Kind::Versions, "versions")] };
        work.goes_on(rng);
        work
    }

    fn goes_on(&self, rng: &mut StdRng) {
        for writer in &self.writers {
            writer.wait_for(writer.progress(), rng.random_range(1..=8), STEPS);
        }
    }

    fn finish(self) -> [Ledger; 2] {
        self.writers.map(Writer::finish)
    }
}

/// Cuts the power of servers and client.
fn cut_everything(cluster: &mut Cluster, mount: &mut Mount, work: Work) -> [Ledger; 2] {
    cluster.cut_power();
    mount.kill9();
    work.finish()
}

/// Starts the servers again and checks what was promised, through a client that has nothing in memory.
fn recover(cluster: &mut Cluster, mount: &mut Mount, ledgers: &[Ledger; 2]) {
    cluster.start_all();
    mount.mount();
    ledgers.iter().for_each(Ledger::assert_kept);
}

fn nothing_promised_is_lost(label: &'static str, file_system: FileSystem) {
    let (mut rng, cuts) = (seeded(label), amount(label, CUTS.0, CUTS.1));
    let mut cluster = Cluster::start(spec(label, file_system));
    let mut mount = cluster.mount();
    let mut promises = 0;
    for round in 0..cuts {
        let work = Work::start(&mount, round, &mut rng);
        let ledgers = if round % 2 == 0 {
            let ledgers = cut_everything(&mut cluster, &mut mount, work);
            cluster.disk().power_on();
            recover(&mut cluster, &mut mount, &ledgers);
            ledgers
        } else {
            // The client lives and brings everything that was not committed.
            cluster.cut_power();
            cluster.disk().power_on();
            cluster.start_all();
            work.goes_on(&mut rng);
            let ledgers = work.finish();
            mount.remount();
            for ledger in &ledgers {
                assert!(ledger.error.is_none(), "{:?}", ledger.error);
                ledger.assert_kept();
            }
            ledgers
        };
        promises += ledgers.iter().map(|l| l.fsynced).sum::<u64>();
        ledgers.iter().for_each(Ledger::remove);
        cluster.assert_runs();
    }
    eprintln!("{label}: {cuts} power cuts, {promises} promises (files, and versions of 40 chunks), all kept");
}

#[test]
fn a_power_cut_on_ext4_loses_nothing_promised() {
    nothing_promised_is_lost("power-ext4", FileSystem::Ext4);
}

#[test]
fn a_power_cut_on_xfs_loses_nothing_promised() {
    nothing_promised_is_lost("power-xfs", FileSystem::Xfs);
}

/// The same with `program`'s syncs switched off must fail.
fn is_found_out(label: &'static str, program: &'static str) {
    let mut rng = seeded(label);
    for round in 0..BLIND_CUTS {
        let spec = spec(label, FileSystem::Ext4);
        let mut cluster = Cluster::start(ClusterSpec { ignore_syncs: Some(program), ..spec });
        let mut mount = cluster.mount();
        // What an idle cluster has on disk is not the question: the work that follows is.
        cluster.disk().sync();
        let work = Work::start(&mount, round, &mut rng);
        let ledgers = cut_everything(&mut cluster, &mut mount, work);
        cluster.disk().power_on();
        // Servers that do not start, or promises that were not kept: both are what the other tests fail with.
        let outcome = catch_unwind(AssertUnwindSafe(|| recover(&mut cluster, &mut mount, &ledgers)));
        // With servers that may be dead nothing can be flushed.
        mount.kill9();
        if outcome.is_err() {
            eprintln!("{label}: found out by power cut {}", round + 1);
            return;
        }
    }
    panic!("nothing was lost in {BLIND_CUTS} power cuts while {program} did not sync: these tests see nothing");
}

#[test]
fn object_servers_that_do_not_sync_are_found_out() {
    is_found_out("power-blind-oss", "sateen-oss");
}

#[test]
fn a_metadata_server_that_does_not_sync_is_found_out() {
    is_found_out("power-blind-mds", "sateen-mds");
}
