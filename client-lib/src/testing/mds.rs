//! One directory of files in memory, with reply records.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use sateen_proto::mds::capabilities_server::Capabilities;
use sateen_proto::mds::{self, cluster_server::Cluster, namespace_server::Namespace};
use sateen_proto::{common, convert, status, version};
use sateen_types::op::{Entry, Mutation, MutationReply, SetTime};
use sateen_types::{
    Attr, Fid, FileType, FsCode, FsError, FsId, FsResult, Layout, LayoutTemplate, ObjectId, OstIndex, Remote,
    StripeIndex, Timestamp,
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use super::CLUSTER;
use super::oss::FakeOss;
use super::repositories::Bucket;

const LEASE_MS: u32 = 300;

#[derive(Clone)]
pub(super) struct Inode {
    pub attr: Attr,
    pub layout: Layout,
    /// What of it is only in a repository.
    pub remote: Option<Remote>,
}

#[derive(Default)]
pub(super) struct State {
    names: HashMap<Vec<u8>, Fid>,
    pub inodes: HashMap<Fid, Inode>,
    /// Session to its reply records.
    sessions: HashMap<Vec<u8>, HashMap<u32, (u64, MutationReply)>>,
    /// Writer of every session there ever was.
    writers: Vec<u64>,
    /// Session, file, number of the open.
    opens: HashSet<(Vec<u8>, Fid, u64)>,
    /// Files that lost their name while they were open.
    unlinked_open: Vec<Fid>,
    next: u32,
    restate: bool,
}

/// See the module above.
pub struct FakeMds {
    pub(super) state: Mutex<State>,
    pub(super) bucket: Bucket,
    oss_address: String,
    /// Objects are cut here.
    pub oss: OnceLock<Arc<FakeOss>>,
    /// Answers of changes that are lost: the change takes effect, the client hears nothing good.
    pub lose_replies: AtomicU64,
    /// How many changes each ExecuteMany had.
    pub shared: Mutex<Vec<usize>>,
    /// Changes that took effect.
    pub executed: AtomicU64,
    /// Every request is answered as by a server that is not there.
    pub down: AtomicBool,
    /// The next report is made and its answer lost, and then every session expires.
    pub expire_after_next_report: AtomicBool,
    /// The next open takes place, and nobody hears of it: the server dies.
    pub restart_after_next_open: AtomicBool,
    pub restated: Mutex<Vec<Fid>>,
    /// No OSS has registered since the MDS was restarted.
    pub unregistered: AtomicBool,
    /// Number of the last grant or recall.
    number: AtomicU64,
    /// Recalls on their way to every client that listens.
    recalls: broadcast::Sender<mds::WatchReply>,
    /// What clients answered to recalls.
    pub answers: Mutex<Vec<mds::AnswerRequest>>,
    /// How often the OST map was asked for.
    pub map_requests: AtomicU64,
}

impl State {
    fn touch(&mut self, fid: Fid) {
        let attr = &mut self.inodes.get_mut(&fid).expect("there").attr;
        attr.mtime = Timestamp { seconds: attr.mtime.seconds + 1, nanos: 0 };
        attr.change += 1;
    }
}

impl FakeMds {
    pub fn new(oss_address: String) -> FakeMds {
        let now = Timestamp::now();
        let root = Attr {
            fid: Fid::ROOT,
            file_type: FileType::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            nlink: 2,
            size: 4096,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            rdev: 0,
            change: 1,
            has_acl: false,
            has_default_acl: false,
            has_capabilities: false,
        };
        let layout = LayoutTemplate::default().resolve(&LayoutTemplate::default());
        let mut state = State::default();
        state.inodes.insert(Fid::ROOT, Inode { attr: root, layout, remote: None });
        FakeMds {
            state: Mutex::new(state),
            bucket: Bucket::default(),
            oss_address,
            oss: OnceLock::new(),
            lose_replies: AtomicU64::new(0),
            shared: Mutex::default(),
            executed: AtomicU64::new(0),
            down: AtomicBool::new(false),
            expire_after_next_report: AtomicBool::new(false),
            restart_after_next_open: AtomicBool::new(false),
            restated: Mutex::default(),
            unregistered: AtomicBool::new(false),
            number: AtomicU64::new(0),
            recalls: broadcast::Sender::new(16),
            answers: Mutex::default(),
            map_requests: AtomicU64::new(0),
        }
    }

    /// Recalls what clients keep of a file.
    pub fn recall(&self, fid: Fid, keep: mds::Capability) {
        let number = self.number.fetch_add(1, Ordering::SeqCst) + 1;
        let recall = mds::Recall { fid: Some(fid.into()), number, keep: keep.into() };
        self.recalls
            .send(mds::WatchReply { recalls: vec![recall], directories: Vec::new() })
            .expect("somebody listens");
    }

    /// Everything is granted.
    fn grant(&self) -> Option<mds::Grant> {
        let number = self.number.fetch_add(1, Ordering::SeqCst) + 1;
        Some(mds::Grant { capability: mds::Capability::Write.into(), number })
    }

    /// Every session expires, and is shut out at the OSTs.
    pub fn expire_sessions(&self) {
        self.expire(&mut self.state.lock());
    }

    /// Every session expires and somebody changes a file, before anybody notices that.
    pub fn expire_sessions_and_touch(&self, fid: Fid) {
        let mut state = self.state.lock();
        self.expire(&mut state);
        state.touch(fid);
    }

    fn expire(&self, state: &mut State) {
        if let Some(oss) = self.oss.get() {
            oss.ended.lock().extend(&state.writers);
        }
        state.sessions.clear();
        state.opens.clear();
    }

    /// Files that lost their name while they were open.
    pub fn unlinked_open(&self) -> Vec<Fid> {
        self.state.lock().unlinked_open.clone()
    }

    /// As after a restart: sessions live, opens are forgotten.
    pub fn restart(&self) {
        let mut state = self.state.lock();
        state.opens.clear();
        state.restate = true;
    }

    /// Opens the MDS counts of a file.
    pub fn opens(&self, fid: Fid) -> usize {
        self.state.lock().opens.iter().filter(|(_, open, _)| *open == fid).count()
    }

    /// Somebody else changed a file's data: its version says so.
    pub fn touch(&self, fid: Fid) {
        self.state.lock().touch(fid);
    }

    pub fn attr(&self, fid: Fid) -> Attr {
        self.state.lock().inodes[&fid].attr.clone()
    }

    pub(super) fn check(&self, session: &[u8]) -> Result<(), Status> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Status::unavailable("not there"));
        }
        if !self.state.lock().sessions.contains_key(session) {
            return Err(status::to_status(FsError::new(FsCode::Stale, "unknown session")));
        }
        Ok(())
    }

    fn apply(&self, state: &mut State, (session, number): (&[u8], u64), op: Mutation) -> FsResult<MutationReply> {
        let stale = |fid: Fid| FsError::new(FsCode::Stale, format!("{fid} is gone"));
        match op {
            Mutation::Create(c) => {
                if let Some(fid) = state.names.get(c.name.as_bytes()).copied() {
                    if c.exclusive {
                        return Err(FsCode::Exists.into());
                    }
                    let inode = state.inodes[&fid].clone();
                    state.opens.insert((session.to_vec(), fid, number));
                    return Ok(MutationReply::Entry(Entry {
                        attr: inode.attr,
                        layout: Some(inode.layout),
                        existed: true,
                    }));
                }
                state.next += 1;
                let fid = Fid { seq: Fid::SEQ_FIRST, oid: state.next, ver: 0 };
                let template = c.layout.unwrap_or_default();
                let mut layout = template.resolve(&LayoutTemplate::default());
                instantiate(&mut layout, 0, 1);
                let root = &state.inodes[&Fid::ROOT].attr;
                let attr =
                    Attr { fid, file_type: FileType::Regular, mode: c.mode.mode, nlink: 1, size: 0, ..root.clone() };
                state.names.insert(c.name.as_bytes().to_vec(), fid);
                state.inodes.insert(fid, Inode { attr: attr.clone(), layout: layout.clone(), remote: None });
                state.opens.insert((session.to_vec(), fid, number));
                Ok(MutationReply::Entry(Entry { attr, layout: Some(layout), existed: false }))
            }
            Mutation::Unlink { name, .. } => {
                let fid = state.names.remove(name.as_bytes()).ok_or(FsCode::NotFound)?;
                if state.opens.iter().any(|(_, open, _)| *open == fid) {
                    state.unlinked_open.push(fid);
                }
                Ok(MutationReply::Done)
            }
            Mutation::Mkdir { name, .. } => {
                state.next += 1;
                let fid = Fid { seq: Fid::SEQ_FIRST, oid: state.next, ver: 0 };
                if state.names.insert(name.as_bytes().to_vec(), fid).is_some() {
                    return Err(FsCode::Exists.into());
                }
                let attr = Attr { fid, ..state.inodes[&Fid::ROOT].attr.clone() };
                let layout = state.inodes[&Fid::ROOT].layout.clone();
                state.inodes.insert(fid, Inode { attr: attr.clone(), layout, remote: None });
                Ok(MutationReply::Entry(Entry { attr, layout: None, existed: false }))
            }
            Mutation::SetAttr(s) => {
                let inode = state.inodes.get_mut(&s.fid).ok_or_else(|| stale(s.fid))?;
                if let Some(size) = s.size {
                    inode.remote = inode.remote.take().filter(|_| size > 0);
                    if size <= inode.attr.size {
                        self.cut(s.fid, &inode.layout, size);
                    }
                    inode.attr.size = size;
                    inode.attr.mtime = Timestamp::now();
                }
                match s.mtime {
                    Some(SetTime::At(t)) => inode.attr.mtime = t,
                    Some(SetTime::Now) => inode.attr.mtime = Timestamp::now(),
                    None => {}
                }
                inode.attr.change += 1;
                Ok(MutationReply::Attr(inode.attr.clone()))
            }
            Mutation::Instantiate { fid, offset, length } => {
                let inode = state.inodes.get_mut(&fid).ok_or_else(|| stale(fid))?;
                instantiate(&mut inode.layout, offset, length);
                Ok(MutationReply::Layout(inode.layout.clone()))
            }
            Mutation::WriteDone(w) => {
                let inode = state.inodes.get_mut(&w.fid).ok_or_else(|| stale(w.fid))?;
                inode.attr.size = inode.attr.size.max(w.end);
                inode.attr.mtime = w.mtime.unwrap_or(inode.attr.mtime);
                inode.attr.change += 1;
                Ok(MutationReply::Attr(inode.attr.clone()))
            }
            other => Err(FsError::new(FsCode::NotSupported, format!("the fake does not know {other:?}"))),
        }
    }

    fn cut(&self, fid: Fid, layout: &Layout, size: u64) {
        let Some(oss) = self.oss.get() else { return };
        let mut ranges = Vec::new();
        for component in &layout.components {
            for (index, ost) in component.osts.iter().enumerate() {
                let stripe = StripeIndex(index as u32);
                let object = ObjectId { fs: FsId(1), fid, component: component.id, stripe };
                ranges.push((u32::from(ost.0), object, component.object_len(stripe, size).0));
            }
        }
        oss.truncate(&ranges);
    }
}

pub(super) fn instantiate(layout: &mut Layout, offset: u64, length: u64) {
    for c in &mut layout.components {
        if !c.is_instantiated() && c.extent.overlaps(offset, offset + length) {
            c.osts = (0..c.striping.stripe_count.min(3)).map(OstIndex).collect();
        }
    }
    layout.generation += 1;
}

type Reply<T> = Result<Response<T>, Status>;

fn unknown<T>() -> Reply<T> {
    Err(Status::unimplemented("the fake does not do that"))
}

#[tonic::async_trait]
impl Namespace for FakeMds {
    async fn open_session(&self, r: Request<mds::OpenSessionRequest>) -> Reply<mds::OpenSessionReply> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Status::unavailable("not there"));
        }
        let r = r.into_inner();
        if r.fs_name != "fake" {
            return Err(status::to_status(FsError::new(FsCode::NotFound, format!("no file system {:?}", r.fs_name))));
        }
        let hello = version::welcome(&r.hello.unwrap_or_default(), CLUSTER, "fake").map_err(status::to_status)?;
        let mut state = self.state.lock();
        state.next += 1;
        let id = vec![state.next as u8; 16];
        state.sessions.insert(id.clone(), HashMap::new());
        state.writers.push(r.writer);
        Ok(Response::new(mds::OpenSessionReply {
            hello: Some(hello),
            session_id: id,
            fs_id: 1,
            slots: 8,
            lease_ms: LEASE_MS,
            compression: common::Compression::Lz4.into(),
            root: Some((&state.inodes[&Fid::ROOT].attr).into()),
        }))
    }

    async fn renew(&self, r: Request<mds::RenewRequest>) -> Reply<mds::RenewReply> {
        let r = r.into_inner();
        self.check(&r.session_id)?;
        let mut state = self.state.lock();
        if r.restate {
            state.restate = false;
            state.opens.retain(|open| open.0 != r.session_id);
            let fids: Vec<Fid> = r.open_files.into_iter().map(|f| f.try_into().expect("a FID")).collect();
            state.opens.extend(fids.iter().zip(r.opens).map(|(fid, number)| (r.session_id.clone(), *fid, number)));
            *self.restated.lock() = fids;
        }
        Ok(Response::new(mds::RenewReply { restate: state.restate, ost_map_version: 1 }))
    }

    async fn close_session(&self, r: Request<mds::CloseSessionRequest>) -> Reply<mds::CloseSessionReply> {
        self.state.lock().sessions.remove(&r.into_inner().session_id);
        Ok(Response::new(mds::CloseSessionReply {}))
    }

    async fn execute(&self, r: Request<mds::ExecuteRequest>) -> Reply<mds::ExecuteReply> {
        let r = r.into_inner();
        self.check(&r.session_id)?;
        let op = Mutation::try_from(r.op.expect("an op")).map_err(status::to_status)?;
        let is_report = matches!(op, Mutation::WriteDone(_));
        let reply = {
            let mut state = self.state.lock();
            let stored = state.sessions.get(&r.session_id).and_then(|s| s.get(&r.slot)).cloned();
            match stored {
                Some((number, reply)) if number == r.number => reply,
                Some((number, _)) if number > r.number => return Err(Status::internal("an old number")),
                _ => {
                    let reply =
                        self.apply(&mut state, (&r.session_id, r.open_number), op).map_err(status::to_status)?;
                    self.executed.fetch_add(1, Ordering::SeqCst);
                    let session = state.sessions.get_mut(&r.session_id).expect("checked");
                    session.insert(r.slot, (r.number, reply.clone()));
                    if is_report && self.expire_after_next_report.swap(false, Ordering::SeqCst) {
                        self.expire(&mut state);
                        return Err(Status::unavailable("the connection broke"));
                    }
                    reply
                }
            }
        };
        let lost = self.lose_replies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if lost.is_ok() {
            return Err(Status::unavailable("the connection broke"));
        }
        Ok(Response::new(mds::ExecuteReply { grant: self.grant(), ..(&reply).into() }))
    }

    async fn execute_many(&self, r: Request<mds::ExecuteManyRequest>) -> Reply<mds::ExecuteManyReply> {
        let changes = r.into_inner().changes;
        self.shared.lock().push(changes.len());
        let mut outcomes = Vec::new();
        for change in changes {
            let outcome = match Namespace::execute(self, Request::new(change)).await {
                Ok(reply) => mds::execute_outcome::Outcome::Reply(reply.into_inner()),
                // As an error of the whole call.
                Err(s) if s.details().is_empty() => return Err(s),
                Err(s) => mds::execute_outcome::Outcome::Error(status::to_detail(status::from_status(&s))),
            };
            outcomes.push(mds::ExecuteOutcome { outcome: Some(outcome) });
        }
        Ok(Response::new(mds::ExecuteManyReply { outcomes }))
    }

    async fn get_attr(&self, r: Request<mds::GetAttrRequest>) -> Reply<mds::AttrReply> {
        let r = r.into_inner();
        self.check(&r.session_id)?;
        let fid = convert::fid(r.fid, "fid").map_err(status::to_status)?;
        match self.state.lock().inodes.get(&fid) {
            Some(inode) => Ok(Response::new(mds::AttrReply { attr: Some((&inode.attr).into()), in_use: false })),
            None => Err(status::to_status(FsError::new(FsCode::Stale, format!("{fid} is gone")))),
        }
    }

    async fn open(&self, r: Request<mds::OpenRequest>) -> Reply<mds::OpenReply> {
        let r = r.into_inner();
        self.check(&r.session_id)?;
        let fid = convert::fid(r.fid, "fid").map_err(status::to_status)?;
        let mut state = self.state.lock();
        if state.restate {
            return Err(status::to_status(FsError::new(FsCode::Unavailable, "it was not said what is open")));
        }
        let Some(inode) = state.inodes.get(&fid).cloned() else {
            return Err(status::to_status(FsError::new(FsCode::Stale, format!("{fid} is gone"))));
        };
        state.opens.insert((r.session_id, fid, r.number));
        if self.restart_after_next_open.swap(false, Ordering::SeqCst) {
            drop(state);
            self.restart();
            return Err(Status::unavailable("the connection broke"));
        }
        let (attr, layout) = (Some((&inode.attr).into()), Some((&inode.layout).into()));
        Ok(Response::new(mds::OpenReply {
            attr,
            layout,
            grant: self.grant(),
            remote: inode.remote.as_ref().map(Into::into),
        }))
    }

    async fn close(&self, r: Request<mds::CloseRequest>) -> Reply<mds::CloseReply> {
        let r = r.into_inner();
        self.check(&r.session_id)?;
        let mut state = self.state.lock();
        for (fid, number) in r.fids.into_iter().zip(r.opens) {
            let fid = Fid::try_from(fid).map_err(status::to_status)?;
            state.opens.remove(&(r.session_id.clone(), fid, number));
        }
        Ok(Response::new(mds::CloseReply {}))
    }

    async fn get_layout(&self, r: Request<mds::GetLayoutRequest>) -> Reply<mds::LayoutReply> {
        let r = r.into_inner();
        self.check(&r.session_id)?;
        let fid = convert::fid(r.fid, "fid").map_err(status::to_status)?;
        let state = self.state.lock();
        Ok(Response::new(mds::LayoutReply { layout: state.inodes.get(&fid).map(|i| (&i.layout).into()) }))
    }

    async fn lookup(&self, _: Request<mds::LookupRequest>) -> Reply<mds::EntryReply> {
        unknown()
    }
    async fn read_dir(&self, _: Request<mds::ReadDirRequest>) -> Reply<mds::ReadDirReply> {
        unknown()
    }
    async fn read_dirs(&self, _: Request<mds::ReadDirsRequest>) -> Reply<mds::ReadDirsReply> {
        unknown()
    }

    async fn read_link(&self, _: Request<mds::ReadLinkRequest>) -> Reply<mds::ReadLinkReply> {
        unknown()
    }
    async fn get_xattr(&self, _: Request<mds::GetXattrRequest>) -> Reply<mds::GetXattrReply> {
        unknown()
    }
    async fn list_xattr(&self, _: Request<mds::ListXattrRequest>) -> Reply<mds::ListXattrReply> {
        unknown()
    }
    async fn get_default_layout(&self, _: Request<mds::GetDefaultLayoutRequest>) -> Reply<mds::DefaultLayoutReply> {
        unknown()
    }
    async fn stat_fs(&self, _: Request<mds::StatFsRequest>) -> Reply<mds::StatFsReply> {
        unknown()
    }
    async fn fid_to_path(&self, _: Request<mds::FidToPathRequest>) -> Reply<mds::FidToPathReply> {
        unknown()
    }
}

#[tonic::async_trait]
impl Capabilities for FakeMds {
    type WatchStream = BoxStream<'static, Result<mds::WatchReply, Status>>;

    async fn watch(&self, r: Request<mds::WatchRequest>) -> Reply<Self::WatchStream> {
        self.check(&r.into_inner().session_id)?;
        let hello = stream::iter([Ok(mds::WatchReply::default())]);
        let recalls = BroadcastStream::new(self.recalls.subscribe()).map_err(|e| Status::data_loss(e.to_string()));
        Ok(Response::new(hello.chain(recalls).boxed()))
    }

    async fn answer(&self, r: Request<mds::AnswerRequest>) -> Reply<mds::AnswerReply> {
        let r = r.into_inner();
        self.check(&r.session_id)?;
        self.answers.lock().push(r);
        Ok(Response::new(mds::AnswerReply {}))
    }
}

#[tonic::async_trait]
impl Cluster for FakeMds {
    async fn list_osts(&self, _: Request<mds::ListOstsRequest>) -> Reply<mds::ListOstsReply> {
        self.map_requests.fetch_add(1, Ordering::SeqCst);
        let unregistered = self.unregistered.load(Ordering::SeqCst);
        let ost = |index| mds::Ost {
            index,
            ost_uuid: vec![index as u8; 16],
            address: if unregistered { String::new() } else { self.oss_address.clone() },
            state: mds::OstState::Up.into(),
            space: Some(mds::Space::default()),
            silent_ms: 0,
        };
        Ok(Response::new(mds::ListOstsReply { version: 1 + u64::from(unregistered), osts: (0..3).map(ost).collect() }))
    }

    async fn hello(&self, _: Request<common::HelloRequest>) -> Reply<common::HelloReply> {
        unknown()
    }
    async fn register_oss(&self, _: Request<mds::RegisterOssRequest>) -> Reply<mds::RegisterOssReply> {
        unknown()
    }
    async fn heartbeat(&self, _: Request<mds::HeartbeatRequest>) -> Reply<mds::HeartbeatReply> {
        unknown()
    }
    async fn status(&self, _: Request<mds::StatusRequest>) -> Reply<mds::StatusReply> {
        unknown()
    }
    async fn create_file_system(&self, _: Request<mds::CreateFileSystemRequest>) -> Reply<mds::FileSystem> {
        unknown()
    }
    async fn list_file_systems(&self, _: Request<mds::ListFileSystemsRequest>) -> Reply<mds::ListFileSystemsReply> {
        unknown()
    }
    async fn get_file_system(&self, _: Request<mds::GetFileSystemRequest>) -> Reply<mds::FileSystem> {
        unknown()
    }
    async fn delete_file_system(&self, _: Request<mds::DeleteFileSystemRequest>) -> Reply<mds::DeleteFileSystemReply> {
        unknown()
    }
}
