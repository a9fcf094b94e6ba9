//! The store as a whole: against a model, across crashes, with failing disks and damaged bytes.

mod crash;
mod faults;
mod fsck;
mod headers;
mod kept;
mod model;
mod orphans;
mod promises;
mod rebuild;
mod retire;
mod under_way;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sateen_types::{
    Codec, ComponentId, Compression, Fid, FsId, FsResult, ObjectId, OstUuid, Part, StripeIndex, Verifier,
};

use super::capacity::Capacity;
use super::disk::{Disk, RealDisk};
use super::faulty::{Faults, FaultyDisk};
use super::index::IndexCache;
use super::read::{ReadOutcome, ReadRange};
use super::segments::SegmentOwner;
use super::write::Write;
use super::{Changed, Store, StoreOptions, codec};

/// Small chunks and segments, so that tests cross their borders.
const CHUNK_LOG2: u8 = 16;
const CHUNK: u64 = 1 << CHUNK_LOG2;
const SEGMENT_BYTES: u64 = 1 << 20;

fn options(capacity: Option<u64>, incarnation: u8) -> StoreOptions {
    StoreOptions {
        ended: Arc::default(),
        owner: SegmentOwner { ost: OstUuid([7; 16]), fs: FsId(1) },
        capacity: Arc::new(Capacity::new(capacity, 0)),
        cache: IndexCache::new(32 << 20),
        segment_bytes: SEGMENT_BYTES,
        verifier: Verifier([incarnation; 16]),
    }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, options(None, 1)).expect("opens")
}

fn open_faulty(dir: &Path, faults: &Arc<Faults>) -> FsResult<Store> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&dir.join("segments")).expect("directory"));
    Store::open_on(dir, Arc::new(FaultyDisk::new(disk, faults.clone())), options(None, 1))
}

fn object(oid: u32) -> ObjectId {
    let fid = Fid { seq: Fid::SEQ_FIRST, oid, ver: 0 };
    ObjectId { fs: FsId(1), fid, component: ComponentId(1), stripe: StripeIndex(0) }
}

/// `bytes` at `offset` as plain ranges, cut at chunk borders.
fn plain(object: ObjectId, offset: u64, bytes: &[u8], compression: Compression) -> Write {
    let mut parts = Vec::new();
    let mut at = 0usize;
    while at < bytes.len() {
        let from = offset + at as u64;
        let len = ((CHUNK - from % CHUNK) as usize).min(bytes.len() - at);
        let crc = crc32c::crc32c(&bytes[at..at + len]);
        parts.push(Part {
            offset: from,
            raw_len: len as u32,
            stored_len: len as u32,
            codec: Codec::Raw,
            raw_crc32c: crc,
            stored_crc32c: crc,
            sealed: false,
            hole: false,
        });
        at += len;
    }
    Write {
        object,
        chunk_log2: CHUNK_LOG2,
        compression,
        fence: None,
        parts,
        payload: Bytes::copy_from_slice(bytes).into(),
    }
}

/// `bytes` from chunk `number` on, sealed as a client does.
fn sealed(object: ObjectId, number: u64, bytes: &[u8], compression: Compression) -> Write {
    let mut parts = Vec::new();
    let mut payload = Vec::new();
    for (i, raw) in bytes.chunks(CHUNK as usize).enumerate() {
        let s = codec::seal(raw, compression);
        parts.push(s.part((number + i as u64) * CHUNK, raw.len()));
        payload.extend_from_slice(&s.stored);
    }
    Write { object, chunk_log2: CHUNK_LOG2, compression, fence: None, parts, payload: Bytes::from(payload).into() }
}

fn put(store: &Store, object: ObjectId, offset: u64, bytes: &[u8]) -> FsResult<Changed> {
    store.write(plain(object, offset, bytes, Compression::Lz4))
}

/// The range as a reader sees it, opened and put together from the parts, which are checked on the way.
fn get(store: &Store, object: ObjectId, offset: u64, length: u32, as_sealed: bool) -> FsResult<Vec<u8>> {
    let end = offset + u64::from(length);
    let mut out = Vec::new();
    let mut at = offset;
    while at < end {
        let mut range = ReadRange { offset: at, length: (end - at) as u32, sealed: as_sealed, verify: false };
        // Either way to read, in turn.
        let from_memory = match READS.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => store.read_from_memory(&object, CHUNK_LOG2, range)?,
            _ => None,
        };
        let mut reply = from_memory.map_or_else(|| store.read(&object, CHUNK_LOG2, range), Ok)?;
        if !matches_checksums(&reply) {
            // What a client does.
            range.verify = true;
            reply = store.read(&object, CHUNK_LOG2, range)?;
        }
        assert!(matches_checksums(&reply), "verified");
        assert!(!reply.parts.is_empty(), "a reply has at least one part");
        let mut payload = reply.payload;
        for part in &reply.parts {
            assert!(part.offset <= at && at < part.offset + u64::from(part.raw_len), "parts cover without gaps");
            let raw = if part.hole {
                vec![0; part.raw_len as usize]
            } else {
                let stored = payload.split_to(part.stored_len as usize).into_bytes();
                codec::open(part.codec, stored.to_vec(), part.raw_len, part.raw_crc32c).expect("opens")
            };
            let from = (at - part.offset) as usize;
            let to = ((end - part.offset) as usize).min(raw.len());
            out.extend_from_slice(&raw[from..to]);
            at = part.offset + to as u64;
        }
        assert!(payload.is_empty());
    }
    Ok(out)
}

/// Reads so far.
static READS: AtomicU64 = AtomicU64::new(0);

fn matches_checksums(reply: &ReadOutcome) -> bool {
    let mut payload = reply.payload.clone();
    reply.parts.iter().filter(|part| !part.hole).all(|part| {
        let stored = payload.split_to(part.stored_len as usize).into_bytes();
        crc32c::crc32c(&stored) == part.stored_crc32c
    })
}

/// Bytes that LZ4 cannot shrink, the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut bytes = vec![0; len];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Disk space of everything below `dir`, in bytes.
fn disk_usage(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| {
            let entry = entry.expect("listed");
            let meta = entry.metadata().expect("there");
            if meta.is_dir() { disk_usage(&entry.path()) } else { meta.blocks() * 512 }
        })
        .sum()
}
