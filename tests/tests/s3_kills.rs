//! Workers, MDS and an OSS are killed at random while everything goes on that has to do with a bucket: imports, loads, exports, releases.
//! Work resumes, nothing is lost, nothing is there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use sateen_tests::cluster::lfs;
use sateen_tests::repository::{Linked, Worker};
use sateen_tests::rng::{pattern, seeded};
use sateen_tests::s3::BUCKET;
use sateen_tests::size::amount;
use sateen_tests::{run_ok, wait};
use sateen_types::repository::{ImportState, RepositoryEvents, RepositorySettings};

/// Rounds of which each kills one to three times: in CI, and at full size.
const ROUNDS: (u64, u64) = (4, 200);
/// From so many on, chance does not decide what there was to see.
const ROUNDS_TELLING: u64 = 50;
/// Workers that share what there is to do.
const WORKERS: usize = 2;
/// What a worker that is killed may be at.
const KINDS_OF_WORK: [&str; 3] = ["import", "fetch", "export"];
/// What is done on the mount in each.
const STEPS: usize = 14;
/// Objects that others put into the bucket before each.
const ARRIVALS: usize = 40;
/// Longest a round may take to come to rest on a loaded machine.
const REST: Duration = Duration::from_secs(180);
/// Files beyond these are removed in the next round.
const FILES_MAX: usize = 100;
/// Large ones, at most.
const LARGE_MAX: usize = 4;
const LARGE: usize = (18 << 20) + 99;
/// Longest pause between a step and a kill, so that kills hit what goes on behind steps, too.
const LAG_MS_MAX: u64 = 400;

/// Bytes by key: what directory and bucket are to be.
type Model = BTreeMap<String, Vec<u8>>;

/// One thing that a program does below the link.
#[derive(Debug, Clone)]
enum Step {
    Write(String, Vec<u8>),
    Remove(String),
    Rename(String, String),
    /// Gives its space back, if nobody has it open and it is in the bucket; then it is read.
    Release(String),
    Read(String),
}

/// Steps that are possible one after the other; changes `model` as they will.
fn plan(rng: &mut StdRng, round: u64, model: &mut Model) -> Vec<(Step, Vec<u8>)> {
    let mut steps = Vec::new();
    // Else each round would take longer than the one before.
    while model.len() > FILES_MAX {
        let name = model.keys().next().expect("not empty").clone();
        model.remove(&name);
        steps.push((Step::Remove(name), Vec::new()));
    }
    for i in 0..STEPS {
        let names: Vec<String> = model.keys().cloned().collect();
        let some = names.choose(rng).cloned();
        let step = match (rng.random_range(0..12), some) {
            (0..3, _) | (_, None) => {
                Step::Write(format!("n{round:03}-{i:02}"), pattern(rng.random(), rng.random_range(0..9000)))
            }
            (3, _) if names.iter().filter(|name| name.starts_with("large")).count() < LARGE_MAX => {
                Step::Write(format!("large{round:03}-{i:02}"), pattern(rng.random(), LARGE))
            }
            (4, Some(name)) => Step::Write(name, pattern(rng.random(), rng.random_range(0..9000))),
            (5, Some(name)) => Step::Remove(name),
            (6 | 7, Some(name)) => Step::Rename(name, format!("r{round:03}-{i:02}")),
            (8 | 9, Some(name)) => Step::Release(name),
            (_, Some(name)) => Step::Read(name),
        };
        let expected = match &step {
            Step::Write(name, bytes) => {
                model.insert(name.clone(), bytes.clone());
                Vec::new()
            }
            Step::Remove(name) => {
                model.remove(name);
                Vec::new()
            }
            Step::Rename(from, to) => {
                let bytes = model.remove(from).expect("chosen from it");
                model.insert(to.clone(), bytes);
                Vec::new()
            }
            Step::Release(name) | Step::Read(name) => model[name].clone(),
        };
        steps.push((step, expected));
    }
    steps
}

/// By programs of their own: a server that this process starts must not inherit a file of the mount, whose last close may wait for
/// that very server.
fn carry_out(root: &Path, scratch: &Path, step: &Step, expected: &[u8]) {
    let at = |name: &str| root.join(name);
    let run = |program: &str, args: &[&Path]| drop(run_ok(Command::new(program).args(args), REST));
    let same = |name: &str| {
        fs::write(scratch, expected).expect("written");
        run("cmp", &[scratch, &at(name)]);
    };
    match step {
        Step::Write(name, bytes) => {
            fs::write(scratch, bytes).expect("written");
            run("cp", &[scratch, &at(name)]);
        }
        Step::Remove(name) => run("rm", &[&at(name)]),
        Step::Rename(from, to) => run("mv", &[&at(from), &at(to)]),
        Step::Release(name) => {
            drop(lfs(&[&"hsm_release", &at(name)]));
            same(name);
        }
        Step::Read(name) => same(name),
    }
}

/// A file has these bytes; an error is none (a worker that is killed is no error of the store).
fn reads(path: &Path, expected: &[u8]) {
    let read = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(
        read == expected,
        "{}: {} bytes, and not those {} that were written",
        path.display(),
        read.len(),
        expected.len()
    );
}

/// What was killed.
struct Killed {
    what: &'static str,
    /// It was at something.
    busy: bool,
}

fn kill_something(linked: &mut Linked, rng: &mut StdRng) -> Killed {
    const KINDS: [(bool, bool); 5] = [(true, false), (true, false), (false, true), (true, true), (false, false)];
    let (worker, mds) = KINDS[rng.random_range(0..KINDS.len())];
    if !worker && !mds {
        // What was loaded or written and is not durable is gone; nobody may take zeros for it.
        linked.cluster.kill_oss(0);
        linked.cluster.start_oss(0);
        return Killed { what: "an OSS", busy: false };
    }
    let at_work = |worker: &Worker| KINDS_OF_WORK.iter().any(|kind| worker.running(kind) > 0);
    let some = rng.random_range(0..linked.workers.len());
    let victim = linked.workers.iter().position(at_work).unwrap_or(some);
    let busy = worker && at_work(&linked.workers[victim]);
    if mds {
        linked.cluster.kill_mds();
    }
    if worker {
        linked.workers.remove(victim).kill9();
    }
    if mds {
        linked.cluster.start_mds();
    }
    if worker {
        linked.add_worker();
    }
    let what = match (worker, mds) {
        (true, true) => "a worker and the MDS",
        (true, false) => "a worker",
        _ => "the MDS",
    };
    Killed { what, busy }
}

/// What there was to see.
#[derive(Debug, Default)]
struct Seen {
    kills: usize,
    /// Kills of workers that were at something.
    busy: usize,
    /// Ends of rounds at which all workers had stored objects since they were started.
    shared: usize,
}

/// So many rounds.
fn run(label: &'static str, rounds: u64) -> Seen {
    let mut rng = seeded(label);
    let exporting = |settings: &mut RepositorySettings| {
        settings.auto_export = RepositoryEvents { created: true, changed: true, deleted: true };
    };
    let mut model: Model = (0..20).map(|i| (format!("first{i:02}"), pattern(i, 1000 * i as usize))).collect();
    let mut linked = Linked::start_with(label, exporting, |store| {
        model.iter().for_each(|(key, bytes)| drop(store.put(BUCKET, key, bytes, &[]).expect("put")));
    });
    (1..WORKERS).for_each(|_| linked.add_worker());
    let mount = linked.cluster.mount();
    let (root, scratch): (PathBuf, PathBuf) = (linked.on(&mount, ""), linked.cluster.dir().join("scratch"));
    let mut seen = Seen::default();
    for round in 0..rounds {
        // Others put objects; they are imported while all the rest goes on.
        for i in 0..ARRIVALS {
            let (key, bytes) = (format!("a{round:03}-{i:02}"), pattern(round << 8 | i as u64, 100 * i));
            linked.s3.put(&key, &bytes, &[]);
            model.insert(key, bytes);
        }
        let arrived = model.clone();
        linked.begin_import();
        // Nothing is done with what arrives in this round: it may not be there yet.
        let mut present: Model =
            arrived.clone().into_iter().filter(|(key, _)| !key.starts_with(&format!("a{round:03}"))).collect();
        let steps = plan(&mut rng, round, &mut present);
        model.retain(|key, _| key.starts_with(&format!("a{round:03}")));
        model.extend(present);

        let done = AtomicUsize::new(0);
        let mut at: Vec<(usize, u64)> = (0..rng.random_range(1..=3usize))
            .map(|_| (rng.random_range(0..steps.len()), rng.random_range(0..LAG_MS_MAX)))
            .collect();
        at.sort_unstable();
        let mut killed = Vec::new();
        std::thread::scope(|scope| {
            let (done, root, steps, scratch) = (&done, &root, &steps, &scratch);
            let program = scope.spawn(move || {
                for (step, expected) in steps {
                    carry_out(root, scratch, step, expected);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
            for (after, lag) in at {
                let so_far = || (done.load(Ordering::Relaxed) >= after || program.is_finished()).then_some(());
                wait::until("steps", REST, so_far);
                std::thread::sleep(Duration::from_millis(lag));
                let Killed { what, busy } = kill_something(&mut linked, &mut rng);
                killed.push((after, what));
                seen.kills += 1;
                seen.busy += usize::from(busy);
            }
            if program.join().is_err() {
                panic!(
                    "round {round}, killed {killed:?}: {:#?}",
                    steps.iter().map(|(step, _)| named(step)).collect::<Vec<_>>()
                );
            }
        });
        let about = format!(
            "round {round}, killed {killed:?}, {:?}",
            steps.iter().map(|(step, _)| named(step)).collect::<Vec<_>>()
        );
        comes_to_rest(&linked, &root, &model, &about);
        let stored = |worker: &Worker| worker.exported("stored") > 0;
        seen.shared += usize::from(linked.workers.iter().all(stored));
    }
    linked.cluster.assert_names_sound();
    seen
}

/// A step without its bytes.
fn named(step: &Step) -> String {
    match step {
        Step::Write(name, bytes) => format!("write {name} {}", bytes.len()),
        Step::Remove(name) => format!("remove {name}"),
        Step::Rename(from, to) => format!("rename {from} {to}"),
        Step::Release(name) => format!("release {name}"),
        Step::Read(name) => format!("read {name}"),
    }
}

/// Import and export end, and directory and bucket are what they should be.
fn comes_to_rest(linked: &Linked, root: &Path, model: &Model, about: &str) {
    let rest = wait::try_until(REST, || {
        let now = linked.now()?;
        assert!(now.import.state != ImportState::Failed, "{about}: {}", now.import.message);
        (now.import.state == ImportState::Done && now.export.queued == 0).then_some(())
    });
    assert!(rest.is_some(), "{about}: {:?}", linked.now());
    let conflicts = linked.conflicts();
    assert!(conflicts.is_empty(), "{about}: {conflicts:?}");
    let names = || -> BTreeSet<String> {
        let entries = fs::read_dir(root).expect("readable");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    };
    let wanted: BTreeSet<String> = model.keys().cloned().collect();
    if wait::try_until(Duration::from_secs(20), || (names() == wanted).then_some(())).is_none() {
        let now = names();
        let (more, less): (Vec<_>, Vec<_>) = (now.difference(&wanted).collect(), wanted.difference(&now).collect());
        panic!("{about}: the directory has {more:?} too many, and {less:?} not");
    }
    let bucket = wait::until("a bucket that is quiet", REST, || linked.s3.objects());
    let keys: BTreeSet<String> = bucket.keys().cloned().collect();
    let (more, less): (Vec<_>, Vec<_>) = (keys.difference(&wanted).collect(), wanted.difference(&keys).collect());
    assert!(more.is_empty() && less.is_empty(), "{about}: the bucket has {more:?} too many, and {less:?} not");
    for (key, bytes) in model {
        assert!(bucket[key].bytes == *bytes, "{about}: the object {key} has {} other bytes", bucket[key].bytes.len());
        reads(&root.join(key), bytes);
    }
}

#[test]
fn nothing_is_lost_or_there_twice_when_workers_servers_and_mds_are_killed_at_random() {
    let test = "s3-kills";
    let rounds = amount(test, ROUNDS.0, ROUNDS.1);
    let seen = run(test, rounds);
    eprintln!("{rounds} rounds: {seen:?}");
    if rounds >= ROUNDS_TELLING {
        assert!(seen.busy > 0, "no kill hit a worker that was at something: {seen:?}");
        assert!(seen.shared > 0, "one worker did it all: {seen:?}");
    }
}
