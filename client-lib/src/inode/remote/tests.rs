//! What is known of a released file against what it is, in any order of answers.

use std::sync::Arc;

use proptest::prelude::*;
use sateen_types::{Attr, ComponentId, Fid, FileType, FsId, LayoutTemplate, OstIndex, Timestamp};

use super::*;
use crate::cache::ChunkCache;
use crate::opens::Opens;

const CHUNK: u64 = 128 << 10;
const CHUNKS: u64 = 12;
const FID: Fid = Fid { seq: Fid::SEQ_FIRST, oid: 1, ver: 0 };

/// A released file at the MDS, and what a client thinks of it.
struct Both {
    /// Which chunks the OSTs have.
    truth: Vec<bool>,
    /// Which chunks a worker has stored, with what the OST said.
    filled: Vec<Option<u8>>,
    /// What the OST says now.
    verifier: u8,
    generation: u32,
    opens: Opens,
    /// Number of the open.
    open: u64,
    inode: Inode,
}

impl Both {
    fn layout(&self) -> Layout {
        layout(self.generation)
    }

    fn remote(&self) -> Option<Remote> {
        remote(&self.truth)
    }

    /// What the MDS takes for stored: also what an OST has lost.
    fn filled(&self) -> Vec<Filled> {
        let of = |(i, verifier): (usize, &Option<u8>)| {
            let range = Extent { start: i as u64 * CHUNK, end: (i as u64 + 1) * CHUNK };
            Some(Filled { range, verifiers: vec![(OstIndex(0), Verifier([(*verifier)?; 16]))] })
        };
        self.filled.iter().enumerate().filter(|(i, _)| !self.truth[*i]).filter_map(of).collect()
    }

    /// Whether the OST as it is now has a chunk.
    fn is_there(&self, chunk: usize) -> bool {
        self.truth[chunk] || self.filled[chunk] == Some(self.verifier)
    }
}

fn layout(generation: u32) -> Layout {
    let mut layout = LayoutTemplate::default().resolve(&LayoutTemplate::default());
    layout.generation = generation;
    layout.components.truncate(1);
    layout.components[0].extent.end = Extent::EOF;
    layout.components[0].id = ComponentId(generation);
    layout.components[0].osts = vec![OstIndex(0)];
    layout
}

fn remote(truth: &[bool]) -> Option<Remote> {
    let mut remote = Remote::none_loaded(CHUNKS * CHUNK);
    for (i, _) in truth.iter().enumerate().filter(|(_, loaded)| **loaded) {
        remote.add(Extent { start: i as u64 * CHUNK, end: (i as u64 + 1) * CHUNK });
    }
    (!remote.all_loaded()).then_some(remote)
}

fn attr() -> Attr {
    let at = Timestamp::default();
    Attr {
        fid: FID,
        file_type: FileType::Regular,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        size: CHUNKS * CHUNK,
        blocks: 0,
        atime: at,
        mtime: at,
        ctime: at,
        btime: at,
        rdev: 0,
        change: 1,
        has_acl: false,
        has_default_acl: false,
        has_capabilities: false,
    }
}

fn start() -> Both {
    let truth = vec![false; CHUNKS as usize];
    let mut opens = Opens::default();
    let open = opens.opening(FID, false);
    let learnt = Learnt { remote: remote(&truth), losses: Some(0) };
    let cache = Arc::new(ChunkCache::new(1 << 20));
    let (inode, _) = Inode::new(FsId(1), attr(), (layout(1), learnt), opens.keeps(FID), cache);
    Both { filled: vec![None; truth.len()], verifier: 0, truth, generation: 1, opens, open, inode }
}

/// What happens to the file, its session, and the questions of a client. Numbers choose chunks or answers.
#[derive(Clone, Debug)]
enum Step {
    /// A worker loads a chunk.
    Load(usize),
    /// A worker stores a chunk, and has not committed it.
    Fill(usize),
    /// The OST is restarted, and loses what was not committed.
    Restart,
    /// A question is asked and answered by the MDS; its answer is on its way.
    Ask,
    /// An answer arrives, in any order, perhaps twice.
    Arrives(usize),
    /// The session is lost and replaced; if `released` somebody has released the file in between.
    Lost { released: bool },
    /// The last open is closed, the file is perhaps released, and it is opened again; older answers may still be on their way.
    Reopened { released: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..CHUNKS as usize).prop_map(Step::Load),
        4 => (0..CHUNKS as usize).prop_map(Step::Fill),
        1 => Just(Step::Restart),
        4 => Just(Step::Ask),
        4 => (0..8usize).prop_map(Step::Arrives),
        1 => any::<bool>().prop_map(|released| Step::Lost { released }),
        1 => any::<bool>().prop_map(|released| Step::Reopened { released }),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn nothing_is_taken_for_loaded_that_is_not(steps in steps(), probe in (0..CHUNKS * CHUNK, 1..CHUNKS * CHUNK)) {
        let mut both = start();
        let mut answers: Vec<(Asked, Option<Remote>, Layout, Vec<Filled>)> = Vec::new();
        for step in steps {
            match step {
                Step::Load(chunk) => both.truth[chunk] = true,
                Step::Fill(chunk) => both.filled[chunk] = Some(both.verifier),
                Step::Restart => {
                    // What the worker has stored is lost; it does not know yet, and the MDS neither.
                    both.verifier += 1;
                }
                Step::Ask => answers.push((both.inode.asks(), both.remote(), both.layout(), both.filled())),
                Step::Arrives(n) => {
                    if let Some((asked, remote, layout, filled)) = answers.get(n).cloned() {
                        both.inode.observe_load(asked, Loaded { remote, layout, filled });
                    }
                }
                Step::Lost { released } => {
                    both.opens.lose_all();
                    release(&mut both, released);
                }
                Step::Reopened { released } => {
                    both.opens.closed(FID, both.open);
                    release(&mut both, released);
                    both.open = both.opens.opening(FID, false);
                    let keeps = both.opens.keeps(FID);
                    let learnt = Learnt { remote: both.remote(), losses: Some(keeps.losses()) };
                    let layout = both.layout();
                    both.inode.observe_open(&attr(), (layout, learnt), keeps);
                }
            }
            let state = both.inode.state();
            for chunk in 0..CHUNKS {
                let known = state.missing(chunk * CHUNK + 5, 1, Purpose::Change).is_none();
                prop_assert!(!known || both.truth[chunk as usize], "chunk {chunk} is not loaded");
                prop_assert!(!known || state.layout.generation == both.generation, "in the layout of before");
                if !known && state.missing(chunk * CHUNK + 5, 1, Purpose::Read).is_none() {
                    let range = Extent { start: chunk * CHUNK, end: (chunk + 1) * CHUNK };
                    let expected = state.provisional().and_then(|p| p.verifier(OstIndex(0), range));
                    // A reply of an OST that was restarted is refused.
                    let there = expected != Some(Verifier([both.verifier; 16])) || both.is_there(chunk as usize);
                    prop_assert!(expected.is_some() && there, "chunk {chunk} is read, and is not there");
                    prop_assert!(state.layout.generation == both.generation, "in the layout of before");
                }
            }
            if let Some(missing) = state.missing(probe.0, probe.1, Purpose::Change) {
                let end = probe.0 + probe.1;
                prop_assert!(missing.start % CHUNK == 0 && missing.end % CHUNK == 0 || missing.end >= CHUNKS * CHUNK);
                prop_assert!(missing.start + CHUNK > probe.0 && missing.end < end + CHUNK, "no more than was wanted");
            }
        }
        // One answer is enough to know all.
        let (asked, remote, layout) = (both.inode.asks(), both.remote(), both.layout());
        let taken_in = both.inode.observe_load(asked, Loaded { remote, layout, filled: Vec::new() });
        prop_assert!(taken_in);
        let state = both.inode.state();
        for chunk in 0..CHUNKS {
            prop_assert_eq!(state.missing(chunk * CHUNK, 1, Purpose::Change).is_none(), both.truth[chunk as usize]);
        }
    }
}

fn release(both: &mut Both, released: bool) {
    if released {
        both.truth.fill(false);
        both.filled.fill(None);
        both.generation += 1;
    }
}

#[test]
fn a_write_behind_the_end_of_the_object_loads_the_chunk_that_both_share() {
    let both = start();
    let end = CHUNKS * CHUNK - 100;
    let learnt = Learnt { remote: Some(Remote::none_loaded(end)), losses: Some(0) };
    let mut state = both.inode.state();
    state.learn(learnt);
    assert_eq!(state.missing(end, 10, Purpose::Change), Some(Extent { start: CHUNKS * CHUNK - CHUNK, end }));
    assert_eq!(state.missing(end + 100, 10, Purpose::Change), None);
    assert_eq!(
        (state.missing(0, 0, Purpose::Change), state.missing(u64::MAX - 1, u64::MAX, Purpose::Change)),
        (None, None)
    );
    state.emptied();
    assert_eq!(state.missing(0, u64::MAX, Purpose::Change), None);
}
