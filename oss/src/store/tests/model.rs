//! Random operations on a store and on a vector of bytes, which must agree, also across restarts and power cuts.

use proptest::prelude::*;
use sateen_types::Compression;

use super::*;

/// Objects are up to this long.
const SIZE_MAX: u64 = 6 * CHUNK;

#[derive(Clone, Debug)]
enum Op {
    Plain { oid: u32, offset: u64, len: usize, seed: u64, text: bool },
    Sealed { oid: u32, number: u64, chunks: usize, tail: usize, seed: u64, text: bool },
    Truncate { oid: u32, size: u64 },
    Punch { oid: u32, offset: u64, len: u64 },
    Destroy { oid: u32 },
    Read { oid: u32, offset: u64, len: u32, sealed: bool },
    Commit,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let oid = || 1u32..3;
    prop_oneof![
        4 => (oid(), 0..SIZE_MAX - 1, 1usize..200_000, any::<u64>(), any::<bool>())
            .prop_map(|(oid, offset, len, seed, text)| Op::Plain { oid, offset, len, seed, text }),
        3 => (oid(), 0u64..5, 0usize..2, 1..CHUNK as usize, any::<u64>(), any::<bool>())
            .prop_map(|(oid, number, chunks, tail, seed, text)| Op::Sealed { oid, number, chunks, tail, seed, text }),
        2 => (oid(), 0..SIZE_MAX).prop_map(|(oid, size)| Op::Truncate { oid, size }),
        2 => (oid(), 0..SIZE_MAX, 1..SIZE_MAX).prop_map(|(oid, offset, len)| Op::Punch { oid, offset, len }),
        1 => oid().prop_map(|oid| Op::Destroy { oid }),
        3 => (oid(), 0..SIZE_MAX, 1..SIZE_MAX as u32, any::<bool>())
            .prop_map(|(oid, offset, len, sealed)| Op::Read { oid, offset, len, sealed }),
        2 => Just(Op::Commit),
        1 => Just(Op::Restart),
    ]
}

fn bytes(seed: u64, len: usize, text: bool) -> Vec<u8> {
    if text { format!("{seed} ").into_bytes().into_iter().cycle().take(len).collect() } else { noise(seed, len) }
}

/// What an object holds; beyond its size all is zero.
#[derive(Clone, Default)]
struct Model {
    bytes: Vec<u8>,
    size: u64,
}

impl Model {
    fn new() -> Model {
        Model { bytes: vec![0; 2 * SIZE_MAX as usize], size: 0 }
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        self.bytes[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    fn zero(&mut self, offset: u64, end: u64) {
        let end = end.min(self.bytes.len() as u64);
        self.bytes[offset.min(end) as usize..end as usize].fill(0);
    }
}

/// Runs one operation on both; object numbers count from `base`.
fn step(store: &Store, base: u32, models: &mut [Model], op: &Op) {
    match *op {
        Op::Plain { oid, offset, len, seed, text } => {
            let data = bytes(seed, len, text);
            put(store, object(base + oid), offset, &data).expect("written");
            models[oid as usize].put(offset, &data);
        }
        Op::Sealed { oid, number, chunks, tail, seed, text } => {
            let data = bytes(seed, chunks * CHUNK as usize + tail, text);
            store.write(sealed(object(base + oid), number, &data, Compression::Lz4)).expect("written");
            let end = (number + chunks as u64 + 1) * CHUNK;
            models[oid as usize].zero(number * CHUNK, end);
            models[oid as usize].put(number * CHUNK, &data);
        }
        Op::Truncate { oid, size } => {
            store.truncate(&object(base + oid), CHUNK_LOG2, size, None).expect("truncated");
            models[oid as usize].zero(size, u64::MAX);
            models[oid as usize].size = size;
        }
        Op::Punch { oid, offset, len } => {
            store.punch(&object(base + oid), CHUNK_LOG2, offset, len, None).expect("punched");
            models[oid as usize].zero(offset, offset + len);
        }
        Op::Destroy { oid } => {
            store.destroy(&[object(base + oid)]).expect("destroyed");
            models[oid as usize] = Model::new();
        }
        Op::Read { oid, offset, len, sealed } => {
            let read = get(store, object(base + oid), offset, len, sealed).expect("read");
            assert!(read == models[oid as usize].bytes[offset as usize..offset as usize + len as usize]);
        }
        Op::Commit => {
            store.commit().expect("committed");
        }
        Op::Restart => {}
    }
}

/// The objects from `base` on agree with their models; returns the space they take.
fn agree(store: &Store, base: u32, models: &[Model]) -> u64 {
    let mut allocated = 0;
    for oid in 1..3u32 {
        let (model, object) = (&models[oid as usize], object(base + oid));
        let attr = store.attr(&object).expect("attr");
        assert_eq!(attr.size, model.size, "size of object {oid}");
        for as_sealed in [true, false] {
            let read = get(store, object, 0, model.bytes.len() as u32, as_sealed).expect("read");
            assert!(read == model.bytes, "bytes of object {oid}");
        }
        let mut sum = 0;
        let key = super::super::keys::ObjectKey::of(&object);
        let visit = |_, r: super::super::records::ChunkRecord| {
            sum += r.extent().len;
            std::ops::ControlFlow::<()>::Continue(())
        };
        store.index.chunks(key, 0, u64::MAX, visit).expect("chunks");
        assert_eq!(attr.allocated, sum, "space of object {oid}");
        allocated += sum;
    }
    allocated
}

/// Once committed, nothing is counted but what the objects take.
fn audit(store: &Store, capacity: &Capacity, allocated: u64) {
    store.commit().expect("committed");
    assert_eq!(capacity.used(), allocated, "space of the OST");
    assert!(store.index.pending().expect("rows").is_empty());
    store.segments.finish_punches(0).expect("synced");
    assert!(store.index.frees().expect("rows").is_empty());
}

#[test]
fn threads_that_write_commit_and_destroy_at_once_do_not_disturb_each_other() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let dir = tempfile::tempdir().expect("temp dir");
    let mut opts = options(None, 1);
    let store = Store::open(dir.path(), opts.clone()).expect("opens");
    let work = |thread: u32| {
        let mut runner = TestRunner::deterministic();
        let mut models = vec![Model::new(); 3];
        for n in 0..4 * 60 {
            let op = op().new_tree(&mut runner).expect("a value").current();
            // Each thread takes its own quarter of one sequence.
            if n % 4 == thread {
                step(&store, 10 * thread, &mut models, &op);
            }
        }
        models
    };
    let models: Vec<Vec<Model>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    let check = |store: &Store, capacity: &Capacity| {
        let allocated = models.iter().enumerate().map(|(i, m)| agree(store, 10 * i as u32, m)).sum();
        audit(store, capacity, allocated);
    };
    check(&store, &opts.capacity);
    drop(store);
    opts = options(None, 1);
    check(&Store::open(dir.path(), opts.clone()).expect("opens"), &opts.capacity);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_a_vector_of_bytes(ops in proptest::collection::vec(op(), 1..30)) {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut models = vec![Model::new(); 3];
        let mut opts = options(None, 1);
        let mut store = Store::open(dir.path(), opts.clone()).expect("opens");
        for op in &ops {
            step(&store, 0, &mut models, op);
            if matches!(op, Op::Restart) {
                drop(store);
                opts = options(None, 1);
                store = Store::open(dir.path(), opts.clone()).expect("opens");
            }
        }
        audit(&store, &opts.capacity, agree(&store, 0, &models));
        drop(store);
        opts = options(None, 1);
        let store = Store::open(dir.path(), opts.clone()).expect("opens");
        audit(&store, &opts.capacity, agree(&store, 0, &models));
    }

    #[test]
    fn after_a_power_cut_each_chunk_is_as_committed_or_as_written(ops in proptest::collection::vec(op(), 1..20)) {
        let dir = tempfile::tempdir().expect("temp dir");
        let faults = Faults::none();
        let mut models = vec![Model::new(); 3];
        let mut committed = models.clone();
        let store = open_faulty(dir.path(), &faults).expect("opens");
        for op in ops.iter().filter(|op| !matches!(op, Op::Restart)) {
            step(&store, 0, &mut models, op);
            if matches!(op, Op::Commit | Op::Truncate { .. } | Op::Destroy { .. }) {
                store.commit().expect("committed");
                committed = models.clone();
            }
        }
        drop(store);
        super::faults::cut_power(dir.path(), &faults);
        let store = open(dir.path());
        for oid in 1..3u32 {
            let (old, new) = (&committed[oid as usize], &models[oid as usize]);
            let read = get(&store, object(oid), 0, old.bytes.len() as u32, true).expect("never corrupt");
            for (n, chunk) in read.chunks(CHUNK as usize).enumerate() {
                let at = n * CHUNK as usize..n * CHUNK as usize + chunk.len();
                // A chunk that was punched or cut needs no bytes of the disk, so both may be there.
                prop_assert!(chunk == &old.bytes[at.clone()] || chunk == &new.bytes[at], "chunk {n} of object {oid}");
            }
            let size = store.attr(&object(oid)).expect("attr").size;
            prop_assert!(size >= old.size.min(new.size) && size <= old.size.max(new.size), "size {size}");
        }
    }
}
