//! Cuts of the network, in namespaces of their own: a mount, or an OSS, that others do not hear, that does not hear others, or
//! neither; once and again and again. Nobody sees what others do not, nothing that was fsynced is lost, and soon after the
//! cut is healed everything goes on.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use sateen_tests::ledger::{Kind, Ledger, Writer};
use sateen_tests::linear::{Call, Clock, Verdict, check};
use sateen_tests::locker::Locker;
use sateen_tests::netns::{Cut, Island, Network};
use sateen_tests::register::{Op, Register};
use sateen_tests::rng::seeded;
use sateen_tests::size::amount;
use sateen_tests::{Cluster, ClusterSpec, Mount, wait};

/// Writes when it is told to.
const LOCKER: &str = env!("CARGO_BIN_EXE_locker");
/// Lease of a session where cuts outlast it.
const LEASE: Duration = Duration::from_secs(2);
/// Lease where they do not.
const LONG_LEASE: Duration = Duration::from_secs(60);
/// So soon after a cut is healed everything goes on.
const BACK: Duration = Duration::from_secs(30);

fn spec(label: &'static str, network: &Network, lease: Duration) -> ClusterSpec {
    let mds_extra = format!("[session]\nlease_ms = {}\n", lease.as_millis());
    ClusterSpec { site: network.hub(), mds_extra, ..ClusterSpec::new(label) }
}

/// Waits until something works after a cut was healed.
#[track_caller]
fn is_back(what: &str, healed: Instant, works: impl FnMut() -> Option<()>) {
    wait::until(&format!("{what} after the cut"), BACK.saturating_sub(healed.elapsed()), works);
    eprintln!("{what}: back after {:.1?}", healed.elapsed());
}

/// Bytes that are stored before the cut.
const LEN: usize = 500_000;
/// Of which so many are written again before the cut, and not stored, and
const OURS: usize = 400_000;
/// so many by another mount during it.
const THEIRS: usize = 300_000;

#[test]
fn a_mount_that_was_cut_off_for_longer_than_its_lease_overwrites_nothing_and_sees_what_others_see() {
    let network = Network::new();
    let island = network.island();
    let cluster = Cluster::start(spec("cut-fence", &network, LEASE));
    let cut_off = cluster.mount_at(&island.site(), &["hard"]);
    let other = cluster.mount_with(&["hard"]);
    for cut in Cut::ALL {
        let name = format!("{cut:?}");
        let (here, there) = (cut_off.join(&name), other.join(&name));
        // Nothing of it is closed, so that nothing of what is written later is stored on the way.
        fs::File::create(&here).expect("create");
        let mut writer = Locker::start(LOCKER, &here);
        writer.ok(&format!("write 0 0 {}", "a".repeat(LEN)));
        writer.ok("sync 0");
        wait::until("the name on the other mount", wait::SERVER, || there.exists().then_some(()));
        writer.ok(&format!("write 0 0 {}", "b".repeat(OURS)));
        island.cut(cut);
        // Waits until the lease is over. (What the mount sends may still arrive, if only its ears are cut.)
        let before = fs::read(&there).expect("read");
        assert!(before.len() == LEN && before.iter().all(|byte| b"ab".contains(byte)), "{cut:?}");
        let mut theirs = Locker::start(LOCKER, &there);
        theirs.ok(&format!("write 0 0 {}", "c".repeat(THEIRS)));
        theirs.ok("sync 0");
        let agreed = fs::read(&there).expect("read");
        assert!(agreed[..THEIRS].iter().all(|byte| *byte == b'c') && agreed[THEIRS..] == before[THEIRS..], "{cut:?}");
        island.heal();
        let healed = Instant::now();
        assert_eq!(writer.ask("sync 0"), format!("err {}", libc::EIO), "{cut:?}: what was given up is told");
        writer.ok("sync 0");
        is_back(&format!("{cut:?}, the mount that was cut off"), healed, || {
            (fs::read(&here).expect("read") == agreed).then_some(())
        });
        let fresh = cluster.mount();
        assert!(fs::read(fresh.join(&name)).expect("read") == agreed, "{cut:?}: stored is something else");
        fs::write(cut_off.join(format!("{name}-new")), "new").expect("it goes on");
        assert!(healed.elapsed() < BACK, "{cut:?}: it took {:?}", healed.elapsed());
    }
}

/// Cuts in CI, and all.
const CUTS: (u64, u64) = (3, 60);
/// Cuts after which new ledgers are begun and the old ones checked and removed, so that checking stays short.
const CUTS_PER_LEDGER: u64 = 6;

/// Where a wire is cut, how and for how long: some for as long as connections last, some again and again.
fn disturb(rng: &mut StdRng, islands: &[&Island], longest: Duration) -> String {
    let island = islands[rng.random_range(0..islands.len())];
    let cut = Cut::ALL[rng.random_range(0..Cut::ALL.len())];
    let flaps = if rng.random_bool(0.4) { rng.random_range(3..8) } else { 1 };
    let longest = longest.as_millis() as u64 / flaps;
    for flap in 0..flaps {
        island.cut(cut);
        std::thread::sleep(Duration::from_millis(rng.random_range(longest / 4..=longest)));
        island.heal();
        if flap + 1 < flaps {
            std::thread::sleep(Duration::from_millis(rng.random_range(0..=longest)));
        }
    }
    format!("{cut:?}, {flaps} times")
}

/// Longest cut: in a full run it outlasts connections and what TCP waits before it tries again.
fn longest(full: Duration) -> Duration {
    if std::env::var_os("SATEEN_TEST_PERCENT").is_some() { full } else { Duration::from_secs(4) }
}

#[test]
fn programs_on_both_sides_of_a_cut_go_on_after_it_and_nothing_they_fsynced_is_lost() {
    let test = "cuts";
    let (mut rng, cuts) = (seeded(test), amount(test, CUTS.0, CUTS.1));
    let network = Network::new();
    let (island, oss_island) = (network.island(), network.island());
    let spec = ClusterSpec { oss_site: Some(oss_island.site()), ..spec("cut-ledger", &network, LONG_LEASE) };
    let mut cluster = Cluster::start(spec);
    let mut cut_off = cluster.mount_at(&island.site(), &["hard"]);
    let mut other = cluster.mount_with(&["hard"]);
    let mut done = 0;
    while done < cuts {
        let start = |kind, mount: &Mount, name: &str| {
            let dir = mount.join(format!("{name}-{done}"));
            Writer::start(Path::new(env!("CARGO_BIN_EXE_ledger-writer")), kind, dir)
        };
        let writers = [
            start(Kind::Files, &cut_off, "files-there"),
            start(Kind::Versions, &cut_off, "versions-there"),
            start(Kind::Files, &other, "files-here"),
            start(Kind::Versions, &other, "versions-here"),
        ];
        for _ in 0..CUTS_PER_LEDGER.min(cuts - done) {
            writers.iter().for_each(|writer| writer.wait_for(writer.progress(), 1, BACK));
            let what = disturb(&mut rng, &[&island, &oss_island], longest(Duration::from_secs(30)));
            let (healed, before) = (Instant::now(), writers.each_ref().map(Writer::progress));
            is_back(&format!("cut {done}, {what}"), healed, || {
                assert!(!writers.iter().any(Writer::has_ended), "a program has seen an error");
                writers.iter().zip(before).all(|(writer, before)| writer.progress() > before).then_some(())
            });
            done += 1;
        }
        let ledgers = writers.map(Writer::finish);
        cut_off.remount();
        other.remount();
        for ledger in &ledgers {
            assert!(ledger.error.is_none(), "{:?}", ledger.error);
            ledger.assert_kept();
        }
        ledgers.iter().for_each(Ledger::remove);
    }
    cluster.assert_runs();
    cluster.assert_names_sound();
}

/// One mount's part in the history of a value in a file, which a process of its own keeps open there.
struct Party {
    number: usize,
    hands: Locker,
    path: std::path::PathBuf,
    written: u64,
}

/// Digits of a value.
const DIGITS: usize = 12;

impl Party {
    fn new(number: usize, mount: &Mount) -> Party {
        let path = mount.join("value");
        wait::until("the file", wait::SERVER, || path.exists().then_some(()));
        Party { number, hands: Locker::start(LOCKER, &path), path, written: 0 }
    }

    /// Writes a value that nobody else writes and makes it durable, or reads; `None`: nobody knows, or it says nothing.
    fn act(&mut self, rng: &mut StdRng, clock: &Clock) -> Option<Call<Op, u64>> {
        if rng.random_range(0..6) == 0 {
            self.reopen();
        }
        let client = self.number;
        if rng.random_range(0..3) > 0 {
            let began = clock.now();
            let answer = self.hands.ask(&format!("read 0 0 {DIGITS}"));
            let value = answer.strip_prefix("ok ").and_then(|text| text.parse().ok());
            let answer = value.map(|value| (value, clock.now()));
            if answer.is_none() {
                self.reopen();
            }
            return answer.map(|answer| Call { client, op: Op::Read, answer: Some(answer), began });
        }
        self.written += 1;
        let value = self.number as u64 * 1_000_000 + self.written;
        let began = clock.now();
        let done = self.hands.ask(&format!("write 0 0 {value:0DIGITS$}")).starts_with("ok")
            && self.hands.ask("sync 0").starts_with("ok");
        let answer = done.then(|| (value, clock.now()));
        if !done {
            self.reopen();
        }
        Some(Call { client, op: Op::Write(value), answer, began })
    }

    fn reopen(&mut self) {
        // A close tells errors of delayed writing, which the writes and syncs have told.
        self.hands.ask("close 0");
        let open = format!("open 0 rw {}", self.path.display());
        wait::until("an open", BACK * 2, || self.hands.ask(&open).starts_with("ok").then_some(()));
    }
}

/// Rounds of cuts in CI, and all.
const ROUNDS: (u64, u64) = (2, 40);
/// Pause between what a party does: so that histories are not too long.
const PACE: Duration = Duration::from_millis(10);

#[test]
fn each_mount_sees_one_order_of_all_writes_though_some_are_cut_off_for_longer_than_their_lease() {
    let test = "values";
    let (mut rng, rounds) = (seeded(test), amount(test, ROUNDS.0, ROUNDS.1));
    let network = Network::new();
    let islands = [network.island(), network.island()];
    let mut cluster = Cluster::start(spec("cut-value", &network, LEASE));
    let options = ["hard"];
    let mounts = [
        cluster.mount_with(&options),
        cluster.mount_at(&islands[0].site(), &options),
        cluster.mount_at(&islands[1].site(), &options),
    ];
    let first = format!("{:0DIGITS$}", 0);
    fs::write(mounts[0].join("value"), first).expect("write");
    let mut parties: Vec<Party> = mounts.iter().enumerate().map(|(i, mount)| Party::new(i, mount)).collect();
    for round in 0..rounds {
        let (clock, calls, stop) = (Clock::default(), Mutex::new(Vec::new()), AtomicBool::new(false));
        let start: u64 = fs::read_to_string(mounts[0].join("value")).expect("read").parse().expect("a value");
        let what = std::thread::scope(|scope| {
            let (clock, calls, stop) = (&clock, &calls, &stop);
            let _stop = Stop(stop);
            let seeds: Vec<u64> = parties.iter().map(|_| rng.random()).collect();
            for (party, seed) in parties.iter_mut().zip(seeds) {
                scope.spawn(move || {
                    let mut rng = <StdRng as rand::SeedableRng>::seed_from_u64(seed);
                    while !stop.load(Ordering::Relaxed) {
                        let call = party.act(&mut rng, clock);
                        calls.lock().expect("no panic").extend(call);
                        std::thread::sleep(PACE);
                    }
                });
            }
            let what = disturb(&mut rng, &[&islands[0], &islands[1]], longest(Duration::from_secs(25)).max(LEASE * 2));
            let healed = Instant::now();
            let before: Vec<usize> = (0..mounts.len()).map(|party| answered(calls, party)).collect();
            is_back(&format!("round {round}, {what}"), healed, || {
                before.iter().enumerate().all(|(party, before)| answered(calls, party) > before + 2).then_some(())
            });
            what
        });
        // All agree now, and whoever comes new.
        let mut calls = calls.into_inner().expect("no panic");
        for (client, mount) in mounts.iter().enumerate() {
            let began = clock.now();
            let value = fs::read_to_string(mount.join("value")).expect("read").parse().expect("a value");
            calls.push(Call { client, op: Op::Read, answer: Some((value, clock.now())), began });
        }
        let lost = calls.iter().filter(|call| call.answer.is_none()).count();
        eprintln!("round {round}, {what}: {} calls, {lost} without an answer", calls.len());
        for party in 0..mounts.len() {
            // Each sees one order of all writes. (While a write is under way one mount may see it before another does.)
            let seen = calls.iter().filter(|call| call.client == party || matches!(call.op, Op::Write(_)));
            match check(&Register, start, &seen.cloned().collect::<Vec<_>>()) {
                Verdict::Linearizable => {}
                Verdict::Broken(story) => panic!("{what}: {story}"),
                Verdict::Undecided => panic!("{what}: no order was found in the time there is"),
            }
        }
    }
    cluster.assert_runs();
}

/// Tells the parties to stop, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many calls of a party had an answer.
fn answered(calls: &Mutex<Vec<Call<Op, u64>>>, party: usize) -> usize {
    let calls = calls.lock().expect("no panic");
    calls.iter().filter(|call| call.client == party && call.answer.is_some()).count()
}
