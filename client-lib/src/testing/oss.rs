//! Objects in memory, with what would survive a power cut kept apart.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use sateen_proto::oss::{self, object_store_server::ObjectStore, read_outcome::Outcome, write_outcome};
use sateen_proto::{convert, status, version};
use sateen_types::{Compression, Fid, FsCode, FsError, FsResult, ObjectId};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::CLUSTER;
use crate::seal::{self, Sealed};

type Key = (u32, ObjectId);

#[derive(Default)]
struct Store {
    now: HashMap<Key, Vec<u8>>,
    committed: HashMap<Key, Vec<u8>>,
    incarnation: u8,
    /// Chunks with a Write under way.
    writing: HashSet<(Key, u64)>,
}

/// See the module above.
pub struct FakeOss {
    store: Mutex<Store>,
    pub full: AtomicBool,
    /// There is no room for this file.
    pub full_for: Mutex<Option<Fid>>,
    pub flip: AtomicBool,
    /// Answers of Write that are lost: the write takes effect, the client hears nothing good.
    pub lose_write_replies: AtomicU64,
    /// Answers of Punch that are lost.
    pub lose_punch_replies: AtomicU64,
    /// Writer and generation of every Write and Punch.
    pub fences: Mutex<Vec<(u64, u64)>>,
    /// Writers that are shut out.
    pub ended: Mutex<HashSet<u64>>,
    pub writes: AtomicU64,
    /// Writes that arrived, answered or not.
    pub attempts: AtomicU64,
    pub commits: AtomicU64,
    /// How many Writes each WriteMany had.
    pub writes_shared: Mutex<Vec<usize>>,
    /// How many Reads each ReadMany had.
    pub reads: Mutex<Vec<usize>>,
    /// Bytes asked for by Read.
    pub read_bytes: AtomicU64,
    /// Two writes of one chunk were under way at once.
    pub overtaking: AtomicBool,
    /// Writes and ReadManys wait for a permit.
    pub gate: Semaphore,
}

impl Default for FakeOss {
    fn default() -> FakeOss {
        FakeOss {
            store: Mutex::default(),
            full: AtomicBool::new(false),
            full_for: Mutex::default(),
            flip: AtomicBool::new(false),
            lose_write_replies: AtomicU64::new(0),
            lose_punch_replies: AtomicU64::new(0),
            fences: Mutex::default(),
            ended: Mutex::default(),
            writes: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            writes_shared: Mutex::default(),
            reads: Mutex::default(),
            read_bytes: AtomicU64::new(0),
            overtaking: AtomicBool::new(false),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }
}

impl FakeOss {
    /// A power cut: what was not committed is gone, and the verifier is another.
    pub fn power_cut(&self) {
        let mut store = self.store.lock();
        store.now = store.committed.clone();
        store.incarnation += 1;
    }

    /// Bytes of all objects.
    pub fn stored_bytes(&self) -> usize {
        self.store.lock().now.values().map(Vec::len).sum()
    }

    /// What the MDS does for a truncate: cuts the objects of a file. Durable.
    pub fn truncate(&self, ranges: &[(u32, ObjectId, u64)]) {
        let mut store = self.store.lock();
        for (ost, object, size) in ranges {
            let key = (*ost, *object);
            if let Some(data) = store.now.get_mut(&key) {
                data.truncate(*size as usize);
            }
            if let Some(data) = store.committed.get_mut(&key) {
                data.truncate(*size as usize);
            }
        }
    }

    fn verifier(&self) -> Vec<u8> {
        vec![self.store.lock().incarnation; 16]
    }

    fn pass(&self, writer: u64, generation: u64) -> FsResult<()> {
        self.fences.lock().push((writer, generation));
        if self.ended.lock().contains(&writer) {
            return Err(FsError::new(FsCode::Stale, format!("writer: the session of {writer} has ended")));
        }
        Ok(())
    }

    fn lost(&self, replies: &AtomicU64) -> FsResult<()> {
        match replies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) {
            Ok(_) => Err(FsError::new(FsCode::Unavailable, "the answer was lost")),
            Err(_) => Ok(()),
        }
    }

    async fn write_now(&self, r: oss::WriteRequest) -> FsResult<oss::WriteReply> {
        self.pass(r.writer, r.generation)?;
        let log2 = convert::chunk_log2(r.chunk_log2)?;
        let key = (r.ost, ObjectId::try_from(convert::required(r.object, "object")?)?);
        let parts = convert::parts_from_wire(r.parts, log2, r.payload.len())?;
        let chunks: HashSet<_> = parts.iter().map(|p| (key, p.offset >> log2)).collect();
        for chunk in &chunks {
            if !self.store.lock().writing.insert(*chunk) {
                self.overtaking.store(true, Ordering::SeqCst);
            }
        }
        tokio::task::yield_now().await;
        if self.full.load(Ordering::SeqCst) || *self.full_for.lock() == Some(key.1.fid) {
            self.store.lock().writing.retain(|c| !chunks.contains(c));
            return Err(FsError::new(FsCode::NoSpace, format!("OST {} is full", r.ost)));
        }
        let mut store = self.store.lock();
        let mut rest = r.payload;
        for part in &parts {
            assert!(!part.sealed || part.raw_len == 1 << log2, "sealed parts are whole chunks: {part:?}");
            let stored = rest.split_to(part.stored_len as usize);
            let raw = seal::open(part, &stored).map_err(|d| FsError::new(FsCode::Corrupt, d.0))?;
            let data = store.now.entry(key).or_default();
            let (from, to) = (part.offset as usize, part.offset as usize + raw.len());
            data.resize(data.len().max(to), 0);
            data[from..to].copy_from_slice(&raw);
        }
        store.writing.retain(|c| !chunks.contains(c));
        drop(store);
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.lost(&self.lose_write_replies)?;
        Ok(oss::WriteReply { verifier: self.verifier(), allocated_delta: 4096 })
    }

    fn read_now(&self, r: &oss::ReadRequest) -> FsResult<oss::ReadReply> {
        let log2 = convert::chunk_log2(r.chunk_log2)?;
        let chunk_len = 1u64 << log2;
        let key = (r.ost, ObjectId::try_from(convert::required(r.object, "object")?)?);
        self.read_bytes.fetch_add(u64::from(r.length), Ordering::SeqCst);
        let (data, verifier) = {
            let store = self.store.lock();
            (store.now.get(&key).cloned().unwrap_or_default(), vec![store.incarnation; 16])
        };
        let end = r.offset + u64::from(r.length);
        let (mut parts, mut payload) = (Vec::new(), Vec::new());
        let mut at = r.offset;
        while at < end {
            let chunk = at / chunk_len * chunk_len;
            let (from, to) = if r.sealed { (chunk, chunk + chunk_len) } else { (at, end.min(chunk + chunk_len)) };
            let stored = (to.min(data.len() as u64)).max(from);
            if from < stored {
                let raw = bytes::Bytes::copy_from_slice(&data[from as usize..stored as usize]);
                let Sealed { part, payload: bytes } = if r.sealed {
                    seal::seal(from, &raw, Compression::Lz4, &seal::Outlook::default())
                } else {
                    seal::plain(from, raw)
                };
                parts.push(oss::Part::from(&part));
                payload.extend_from_slice(&bytes);
            }
            if stored < to {
                parts.push(oss::Part {
                    offset: stored,
                    raw_len: (to - stored) as u32,
                    hole: true,
                    ..Default::default()
                });
            }
            at = to;
        }
        if self.flip.load(Ordering::SeqCst)
            && let Some(byte) = payload.first_mut()
        {
            *byte ^= 1;
        }
        Ok(oss::ReadReply { parts, object_size: data.len() as u64, verifier, payload: payload.into() })
    }
}

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ObjectStore for FakeOss {
    async fn hello(&self, r: Request<sateen_proto::common::HelloRequest>) -> Reply<oss::HelloReply> {
        let hello = version::welcome(r.get_ref(), CLUSTER, "fake").map_err(status::to_status)?;
        Ok(Response::new(oss::HelloReply { hello: Some(hello), osts: vec![0, 1, 2] }))
    }

    async fn write(&self, r: Request<oss::WriteRequest>) -> Reply<oss::WriteReply> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        let _permit = self.gate.acquire().await.expect("open");
        self.write_now(r.into_inner()).await.map(Response::new).map_err(status::to_status)
    }

    async fn write_many(&self, r: Request<oss::WriteManyRequest>) -> Reply<oss::WriteManyReply> {
        let oss::WriteManyRequest { writes, mut payload } = r.into_inner();
        self.attempts.fetch_add(writes.len() as u64, Ordering::SeqCst);
        let _permit = self.gate.acquire().await.expect("open");
        self.writes_shared.lock().push(writes.len());
        let mut outcomes = Vec::new();
        for write in writes {
            let len: u32 = write.parts.iter().map(|part| part.stored_len).sum();
            let write = oss::WriteRequest { payload: payload.split_to(len as usize), ..write };
            let outcome = match self.write_now(write).await {
                Ok(reply) => write_outcome::Outcome::Reply(reply),
                Err(e) => write_outcome::Outcome::Error(status::to_detail(e)),
            };
            outcomes.push(oss::WriteOutcome { outcome: Some(outcome) });
        }
        Ok(Response::new(oss::WriteManyReply { outcomes }))
    }

    async fn read(&self, r: Request<oss::ReadRequest>) -> Reply<oss::ReadReply> {
        self.read_now(r.get_ref()).map(Response::new).map_err(status::to_status)
    }

    async fn read_many(&self, r: Request<oss::ReadManyRequest>) -> Reply<oss::ReadManyReply> {
        let _permit = self.gate.acquire().await.expect("open");
        let (mut outcomes, mut payload) = (Vec::new(), Vec::new());
        for read in &r.get_ref().reads {
            let outcome = match self.read_now(read) {
                Ok(reply) => {
                    payload.extend_from_slice(&reply.payload);
                    Outcome::Reply(oss::ReadReply { payload: Default::default(), ..reply })
                }
                Err(e) => Outcome::Error(status::to_detail(e)),
            };
            outcomes.push(oss::ReadOutcome { outcome: Some(outcome) });
        }
        self.reads.lock().push(outcomes.len());
        Ok(Response::new(oss::ReadManyReply { outcomes, payload: payload.into() }))
    }

    async fn commit(&self, r: Request<oss::CommitRequest>) -> Reply<oss::CommitReply> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        let mut store = self.store.lock();
        let of_ost: Vec<_> =
            store.now.iter().filter(|(k, _)| k.0 == r.get_ref().ost).map(|(k, v)| (*k, v.clone())).collect();
        store.committed.extend(of_ost);
        drop(store);
        Ok(Response::new(oss::CommitReply { verifier: self.verifier() }))
    }

    async fn punch(&self, r: Request<oss::PunchRequest>) -> Reply<oss::ChangeReply> {
        let r = r.into_inner();
        self.pass(r.writer, r.generation).map_err(status::to_status)?;
        let object = r.object.and_then(|o| ObjectId::try_from(o).ok()).expect("an object");
        let mut store = self.store.lock();
        if let Some(data) = store.now.get_mut(&(r.ost, object)) {
            let len = data.len() as u64;
            data[r.offset.min(len) as usize..(r.offset + r.length).min(len) as usize].fill(0);
        }
        drop(store);
        self.lost(&self.lose_punch_replies).map_err(status::to_status)?;
        Ok(Response::new(oss::ChangeReply { verifier: self.verifier(), allocated_delta: 0 }))
    }

    async fn truncate(&self, _: Request<oss::TruncateRequest>) -> Reply<oss::ChangeReply> {
        Err(Status::unimplemented("clients do not truncate objects"))
    }

    async fn destroy(&self, _: Request<oss::DestroyRequest>) -> Reply<oss::DestroyReply> {
        Err(Status::unimplemented("clients do not destroy objects"))
    }

    async fn get_attr(&self, _: Request<oss::GetAttrRequest>) -> Reply<oss::GetAttrReply> {
        Err(Status::unimplemented("not asked by clients"))
    }

    async fn extents(&self, r: Request<oss::ExtentsRequest>) -> Reply<oss::ExtentsReply> {
        let r = r.into_inner();
        let chunk_len = 1u64 << r.chunk_log2;
        let object = r.object.and_then(|o| ObjectId::try_from(o).ok()).expect("an object");
        let data = self.store.lock().now.get(&(r.ost, object)).cloned().unwrap_or_default();
        let mut extents: Vec<oss::DataExtent> = Vec::new();
        for (index, chunk) in data.chunks(chunk_len as usize).enumerate() {
            let offset = index as u64 * chunk_len;
            if offset + chunk_len <= r.offset || chunk.iter().all(|b| *b == 0) {
                continue;
            }
            match extents.last_mut() {
                Some(last) if last.offset + last.length == offset => last.length += chunk_len,
                _ => extents.push(oss::DataExtent { offset, length: chunk_len }),
            }
        }
        Ok(Response::new(oss::ExtentsReply { extents, complete: true }))
    }

    async fn stat_fs(&self, _: Request<oss::StatFsRequest>) -> Reply<oss::StatFsReply> {
        Err(Status::unimplemented("not asked by clients"))
    }

    async fn fence(&self, _: Request<oss::FenceRequest>) -> Reply<oss::FenceReply> {
        Err(Status::unimplemented("not asked by clients"))
    }

    async fn drop_file_system(&self, _: Request<oss::DropFileSystemRequest>) -> Reply<oss::DropFileSystemReply> {
        Err(Status::unimplemented("not asked by clients"))
    }
}
