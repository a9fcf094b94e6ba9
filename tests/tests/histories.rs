//! Names are linearizable: whatever eight clients do at the same time in the same directories, and however often the MDS is
//! killed meanwhile, there is one order of events in which each saw what it saw.
//!
//! The clients are sessions of the client library: mounts have the kernel between, which keeps names for a second. They tell
//! each other which names they have made, so that what was answered must be seen by whoever asks afterwards; without
//! write-back of names also the FIDs. (With it the MDS need not have heard of a FID before somebody asks for the name.) Some
//! have so little patience that they do not hear what became of a request when the MDS is killed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sateen_client::{Client, NewFile, Options};
use sateen_tests::linear::{Call, Clock, Verdict, check};
use sateen_tests::names::choose::Known;
use sateen_tests::names::{Answer, Label, MODES, Names, Op, Seen, Stat, State};
use sateen_tests::ports::Port;
use sateen_tests::rng::seeded;
use sateen_tests::size::amount;
use sateen_tests::{Cluster, ClusterSpec, metrics, wait};
use sateen_types::op::{Access, SetAttr};
use sateen_types::{Attr, Credential, Fid, FileType, FsCode, FsResult, Name};
use tokio::runtime::Runtime;

/// Histories in CI, and all: with write-back of names, and as many without.
const HISTORIES: (u64, u64) = (2, 50);
/// Clients of a history.
const CLIENTS: usize = 8;
/// Of which so many have little patience.
const IMPATIENT: usize = 2;
/// How much: less than a server takes to start.
const PATIENCE: Duration = Duration::from_millis(60);
/// Operations of each client.
const OPS: usize = 60;
/// Directories in which things happen that have nothing to do with each other.
const ARENAS: usize = 2;
/// Kills of the MDS in each history.
const KILLS: usize = 3;
/// Names that clients talk of at a time.
const RUMOURS: usize = 12;
/// Operations for which a client has a directory that it made to itself, unless somebody finds it.
const ALONE_MAX: usize = 12;

static USER: Credential = Credential::ROOT;

fn name(label: Label) -> Name {
    Name::parse(format!("n{label}").as_bytes()).expect("a valid name")
}

fn label(name: &Name) -> Label {
    let text = std::str::from_utf8(name.as_bytes()).expect("text");
    text.strip_prefix('n').and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("nobody has made {text}"))
}

fn stat(attr: &Attr) -> Stat<Fid> {
    Stat { id: attr.fid, kind: attr.file_type, mode: attr.mode, links: attr.nlink }
}

/// Does it.
async fn run(client: &Client, op: &Op) -> FsResult<Seen<Fid>> {
    let inode = |attr: Attr| Seen::Inode(stat(&attr), false);
    Ok(match *op {
        Op::Create { at, exclusive, .. } => {
            let (parent, name, access) = (at.0, name(at.1), Access::READ);
            let new = NewFile { parent, name, mode: MODES.0.into(), exclusive, access, layout: None };
            let created = client.create(&USER, new).await?;
            Seen::Inode(stat(&created.attr), created.existed)
        }
        Op::Mkdir { at, .. } => inode(client.mkdir(&USER, at.0, &name(at.1), MODES.1).await?),
        Op::Symlink { at, serial } => {
            inode(client.symlink(&USER, at.0, &name(at.1), serial.to_string().as_bytes()).await?)
        }
        Op::Link { fid, at } => inode(client.link(&USER, fid, at.0, &name(at.1)).await?),
        Op::Unlink { at } => client.unlink(&USER, at.0, &name(at.1)).await.map(|()| Seen::Done)?,
        Op::Rmdir { at } => client.rmdir(&USER, at.0, &name(at.1)).await.map(|()| Seen::Done)?,
        Op::Rename { from, to, mode } => {
            client.rename(&USER, (from.0, &name(from.1)), (to.0, &name(to.1)), mode).await?;
            Seen::Done
        }
        Op::Chmod { fid, mode } => {
            inode(client.setattr(&USER, SetAttr { mode: Some(mode), ..SetAttr::new(fid) }).await?)
        }
        Op::Lookup { at } => inode(client.lookup(&USER, at.0, &name(at.1)).await?),
        Op::Stat { fid } => inode(client.getattr(fid).await?),
        Op::Readlink { fid } => {
            let target = client.readlink(fid).await?;
            Seen::Target(String::from_utf8(target).ok().and_then(|t| t.parse().ok()).expect("a number, as it was made"))
        }
        Op::List { dir } => {
            let (entries, end, _) = client.readdir(&USER, dir, 0, 100, false).await?;
            assert!(end, "a few names are one page");
            Seen::Names(entries.into_iter().map(|entry| (label(&entry.name), entry.fid)).collect())
        }
        Op::Parent { dir } => Seen::Dir(client.lookup_parent(&USER, dir).await?.fid),
    })
}

/// The answer, if it is known what became of the operation.
fn known(op: &Op, result: FsResult<Seen<Fid>>) -> Option<Answer> {
    match result {
        Ok(seen) => Some(Ok(seen)),
        Err(e) => match e.code {
            FsCode::TimedOut | FsCode::Unavailable | FsCode::Awaiting => None,
            FsCode::NotFound | FsCode::Exists | FsCode::NotDirectory | FsCode::IsDirectory => Some(Err(e.code)),
            FsCode::NotEmpty | FsCode::Invalid | FsCode::NotPermitted | FsCode::Stale => Some(Err(e.code)),
            _ => panic!("{op:?}: {e}"),
        },
    }
}

/// What happens in one directory.
struct Arena {
    top: Fid,
    /// What each client knows.
    known: Vec<Mutex<Known>>,
    /// Names that were made, of which everybody hears.
    rumours: Mutex<VecDeque<(Fid, Label)>>,
    calls: Mutex<Vec<Call<Op, Answer>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arena {
    fn new(top: Fid) -> Arena {
        let known = (0..CLIENTS).map(|_| Mutex::new(Known::new(top))).collect();
        Arena { top, known, rumours: Mutex::default(), calls: Mutex::default() }
    }

    /// What a client does next: it looks for what it has heard of, or anything, in `own` if it is there.
    fn choose(&self, client: usize, rng: &mut StdRng, serial: u32, own: Option<Fid>) -> Op {
        let known = lock(&self.known[client]);
        let heard = lock(&self.rumours).iter().rev().find(|(dir, _)| known.dirs().any(|known| known == *dir)).copied();
        match heard {
            Some(at) if own.is_none() && rng.random_bool(0.2) => Op::Lookup { at },
            _ => known.any_op(rng, serial, own),
        }
    }

    /// A client has its answer, and tells the others.
    fn tell(&self, client: usize, op: &Op, answer: &Answer, with_fids: bool) {
        if let (Op::Mkdir { at, .. }, Ok(_)) = (op, answer) {
            let mut rumours = lock(&self.rumours);
            rumours.push_back(*at);
            if rumours.len() > RUMOURS {
                rumours.pop_front();
            }
        }
        let who = if with_fids { 0..CLIENTS } else { client..client + 1 };
        self.known[who].iter().for_each(|known| lock(known).learn(answer));
    }
}

/// A directory that a client has made, and of which it has not told the others.
struct Own {
    arena: usize,
    dir: Fid,
    made: (Op, Answer),
    /// For so many operations.
    left: usize,
}

/// What the clients of a history have in common.
struct History {
    arenas: Vec<Arena>,
    /// The clients tell each other FIDs.
    with_fids: bool,
    clock: Clock,
    serial: AtomicU32,
    /// Operations that were done.
    done: AtomicUsize,
    /// Of which nobody knows what became.
    unanswered: AtomicUsize,
}

impl History {
    /// One call, and its answer as the client knows it.
    async fn call(&self, number: usize, client: &Client, arena: usize, op: Op) -> Option<Answer> {
        let began = self.clock.now();
        let result = run(client, &op).await;
        let ended = self.clock.now();
        let answer = known(&op, result);
        let call = Call { client: number, op, answer: answer.clone().map(|answer| (answer, ended)), began };
        lock(&self.arenas[arena].calls).push(call);
        self.done.fetch_add(1, Ordering::Relaxed);
        self.unanswered.fetch_add(usize::from(answer.is_none()), Ordering::Relaxed);
        answer
    }

    /// What one client does.
    async fn play(&self, number: usize, client: &Client, mut rng: StdRng) {
        let mut own: Option<Own> = None;
        for _ in 0..OPS {
            if own.as_ref().is_some_and(|own| own.left == 0)
                && let Some(Own { arena, made: (op, answer), .. }) = own.take()
            {
                self.arenas[arena].tell(number, &op, &answer, self.with_fids);
            }
            let (arena, alone) = match &mut own {
                Some(own) if rng.random_bool(0.7) => {
                    own.left -= 1;
                    (own.arena, Some(own.dir))
                }
                _ => (rng.random_range(0..ARENAS), None),
            };
            let serial = self.serial.fetch_add(1, Ordering::Relaxed);
            let op = self.arenas[arena].choose(number, &mut rng, serial, alone);
            match (self.call(number, client, arena, op.clone()).await, &op) {
                (None, _) => self.recover(client).await,
                (Some(Ok(Seen::Inode(stat, found))), Op::Mkdir { .. }) if own.is_none() => {
                    let (dir, left) = (stat.id, rng.random_range(1..=ALONE_MAX));
                    own = Some(Own { arena, dir, made: (op, Ok(Seen::Inode(stat, found))), left });
                }
                (Some(answer), _) => self.arenas[arena].tell(number, &op, &answer, self.with_fids),
            }
        }
    }

    /// Goes on when the MDS is back: of calls without an answer one at a time is enough.
    async fn recover(&self, client: &Client) {
        while let Err(e) = client.getattr(client.root()).await {
            assert!(e.code.is_retryable(), "{e}");
        }
    }

    /// Looks at everything.
    async fn walk(&self, client: &Client) {
        for arena in 0..ARENAS {
            let mut dirs = VecDeque::from([self.arenas[arena].top]);
            while let Some(dir) = dirs.pop_front() {
                let listed = self.call(CLIENTS, client, arena, Op::List { dir }).await;
                let Some(Ok(Seen::Names(names))) = listed else { panic!("{dir} was there a moment ago: {listed:?}") };
                for label in names.into_keys() {
                    let found = self.call(CLIENTS, client, arena, Op::Lookup { at: (dir, label) }).await;
                    let Some(Ok(Seen::Inode(stat, _))) = found else { panic!("it was listed: {found:?}") };
                    if stat.kind == FileType::Directory {
                        dirs.push_back(stat.id);
                    }
                }
            }
        }
    }

    #[track_caller]
    fn assert_linearizable(&self) {
        for arena in &self.arenas {
            let calls = lock(&arena.calls);
            let spec = Names::new(calls.iter().filter_map(|call| Some((&call.op, &call.answer.as_ref()?.0))));
            match check(&spec, State::new(arena.top), &calls) {
                Verdict::Linearizable => {}
                Verdict::Broken(story) => panic!("{story}"),
                Verdict::Undecided => panic!("no order was found for {} calls in the time there is", calls.len()),
            }
        }
    }
}

/// A cluster, and whom it serves.
struct World {
    runtime: Runtime,
    cluster: Cluster,
    metrics: Port,
    write_back_names: bool,
}

impl World {
    fn new(label: &'static str, write_back_names: bool) -> World {
        let metrics = Port::free();
        let mds_extra = format!("metrics_listen = \"{}\"\n", metrics.address());
        let cluster = Cluster::start(ClusterSpec { oss: 1, mds_extra, ..ClusterSpec::new(label) });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        World { runtime: runtime.expect("a runtime can be built"), cluster, metrics, write_back_names }
    }

    fn client(&self, retry_for: Option<Duration>) -> Client {
        let source = self.cluster.source().parse().expect("a valid source");
        let options = Options { retry_for, write_back_names: self.write_back_names, ..Options::default() };
        self.runtime.block_on(Client::connect(&source, options)).expect("connect")
    }

    /// One history; how often directories were seen to be held, and how many calls were not answered.
    fn history(&mut self, round: u64, rng: &mut StdRng) -> (u64, usize) {
        let maker = self.client(None);
        let top = |arena: usize| {
            let name = Name::parse(format!("h{round}-{arena}").as_bytes()).expect("a valid name");
            Arena::new(self.runtime.block_on(maker.mkdir(&USER, maker.root(), &name, MODES.1)).expect("mkdir").fid)
        };
        let arenas = (0..ARENAS).map(top).collect();
        let (clock, serial) = (Clock::default(), AtomicU32::new(1));
        let (with_fids, done, unanswered) = (!self.write_back_names, 0.into(), 0.into());
        let history = Arc::new(History { arenas, with_fids, clock, serial, done, unanswered });
        let patience = |number: usize| (number < IMPATIENT).then_some(PATIENCE);
        let clients: Vec<Client> = (0..CLIENTS).map(|number| self.client(patience(number))).collect();
        let players: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(number, client)| {
                let (history, client) = (Arc::clone(&history), client.clone());
                let rng = StdRng::seed_from_u64(rng.random());
                self.runtime.spawn(async move { history.play(number, &client, rng).await })
            })
            .collect();
        let mut kills: Vec<usize> = (0..KILLS).map(|_| rng.random_range(0..CLIENTS * OPS)).collect();
        kills.sort_unstable();
        let mut held = 0;
        for at in kills {
            wait::until("operations", wait::SERVER * 2, || {
                let ended = players.iter().all(|player| player.is_finished());
                (history.done.load(Ordering::Relaxed) >= at || ended).then_some(())
            });
            held += metrics::of_file_system(self.metrics.address(), "directories_held");
            self.cluster.kill_mds();
            self.cluster.start_mds();
        }
        for player in players {
            self.runtime.block_on(player).expect("a client of the test");
        }
        // Whoever comes new sees it all, and so it stays.
        let newcomer = self.client(None);
        self.runtime.block_on(history.walk(&newcomer));
        self.cluster.kill_mds();
        self.cluster.start_mds();
        self.runtime.block_on(history.walk(&newcomer));
        history.assert_linearizable();
        for client in clients.into_iter().chain([maker, newcomer]) {
            self.runtime.block_on(client.close()).expect("close");
        }
        (held, history.unanswered.load(Ordering::Relaxed))
    }
}

fn histories(label: &'static str, write_back_names: bool) {
    let (mut rng, rounds) = (seeded(label), amount(label, HISTORIES.0, HISTORIES.1));
    let mut world = World::new(label, write_back_names);
    let (mut held, mut unanswered) = (0, 0);
    for round in 0..rounds {
        let (more_held, more_unanswered) = world.history(round, &mut rng);
        held += more_held;
        unanswered += more_unanswered;
    }
    eprintln!("{rounds} histories, {unanswered} calls without an answer, directories held {held} times");
    assert_eq!(held > 0, write_back_names, "directories that were seen to be held: {held}");
    assert!(unanswered > 0, "every call was answered: that there are others was not tested");
    world.cluster.assert_runs();
    world.cluster.assert_names_sound();
}

#[test]
fn histories_of_names_that_are_durable_at_once_are_linearizable_while_the_mds_is_killed() {
    histories("histories", false);
}

#[test]
fn histories_of_names_that_are_written_back_are_linearizable_while_the_mds_is_killed() {
    histories("histories-back", true);
}
