//! The server over loopback, with ordinary tonic clients and OSTs that only say they exist.

#[path = "grpc/fencing.rs"]
mod fencing;
#[path = "grpc/many.rs"]
mod many;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sateen_mds::cluster::Cluster;
use sateen_mds::config::Config;
use sateen_mds::dir::MdsDir;
use sateen_mds::server;
use sateen_proto::common::Fid as WireFid;
use sateen_proto::mds::cluster_client::ClusterClient;
use sateen_proto::mds::execute_request::Op;
use sateen_proto::mds::namespace_client::NamespaceClient;
use sateen_proto::mds::*;
use sateen_proto::oss::object_store_server::{ObjectStore, ObjectStoreServer};
use sateen_proto::status::from_status;
use sateen_proto::{oss, version};
use sateen_runtime::Shutdown;
use sateen_types::{Fid, FsCode};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, async_trait};

/// Longest wait for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Silence after which a session ends.
const LEASE: Duration = Duration::from_secs(3);

/// A server on a directory, stopped when dropped.
struct Mds {
    address: SocketAddr,
    stop: Shutdown,
    running: Option<tokio::task::JoinHandle<()>>,
    cluster: ClusterClient<Channel>,
    names: NamespaceClient<Channel>,
}

impl Mds {
    async fn start(dir: &std::path::Path) -> Mds {
        Mds::serve(Mds::open(dir)).await
    }

    fn open(dir: &std::path::Path) -> Arc<Cluster> {
        let mut config = Config { dir: dir.to_owned(), ..Config::default() };
        config.session.lease_ms = LEASE.as_millis() as u64;
        // OSTs here send no heartbeats.
        config.cluster.ost_timeout_ms = 60_000;
        let opened = MdsDir::open(dir).expect("opens");
        Cluster::open(opened, config.cluster_options()).expect("opens")
    }

    async fn serve(cluster: Arc<Cluster>) -> Mds {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let stop = Shutdown::new();
        let running = tokio::spawn({
            let stop = stop.clone();
            async move { server::serve(cluster, listener, stop).await.expect("serves") }
        });
        let url = format!("http://{address}");
        let cluster = ClusterClient::connect(url.clone()).await.expect("connects");
        let names = NamespaceClient::connect(url).await.expect("connects");
        Mds { address, stop, running: Some(running), cluster, names }
    }

    async fn stop(mut self) {
        self.stop.request();
        self.running.take().expect("runs").await.expect("stops");
    }

    async fn mount(&self) -> Mount {
        self.mount_as(0).await
    }

    async fn mount_as(&self, writer: u64) -> Mount {
        self.mount_after(writer, Vec::new()).await.expect("opens")
    }

    async fn mount_after(&self, writer: u64, follows: Vec<u8>) -> Result<Mount, FsCode> {
        let request = OpenSessionRequest {
            hello: Some(version::hello("test")),
            fs_name: "scratch".into(),
            client: "test".into(),
            writer,
            follows,
        };
        let reply = self.names.clone().open_session(request).await.map_err(|s| from_status(&s).code)?.into_inner();
        Ok(Mount { names: self.names.clone(), session: reply.session_id, numbers: Mutex::new(0) })
    }

    async fn create_fs(&self) {
        let request = CreateFileSystemRequest { name: "scratch".into(), root_mode: 0o777, ..Default::default() };
        self.cluster.clone().create_file_system(request).await.expect("creates");
    }

    async fn register(&self, address: &str, uuid: u8) -> Vec<u32> {
        self.registered(address, uuid).await.indexes
    }

    fn report(uuid: u8) -> OstReport {
        let space = Some(Space { total: 1 << 40, used: 0, available: 1 << 40, objects: 0 });
        OstReport { ost_uuid: vec![uuid; 16], space, ..Default::default() }
    }

    async fn confirm(&self, address: &str, uuid: u8, registration: u64) -> HeartbeatReply {
        let request = HeartbeatRequest { address: address.into(), osts: vec![Mds::report(uuid)], registration };
        self.cluster.clone().heartbeat(request).await.expect("hears").into_inner()
    }

    async fn state(&self, index: usize) -> OstState {
        let osts = self.cluster.clone().list_osts(ListOstsRequest { known_version: 0 }).await.expect("lists");
        osts.into_inner().osts[index].state()
    }

    async fn registered(&self, address: &str, uuid: u8) -> RegisterOssReply {
        let request = RegisterOssRequest {
            cluster_id: Vec::new(),
            address: address.into(),
            osts: vec![Mds::report(uuid)],
            software: "test".into(),
        };
        self.cluster.clone().register_oss(request).await.expect("registers").into_inner()
    }
}

struct Mount {
    names: NamespaceClient<Channel>,
    session: Vec<u8>,
    numbers: Mutex<u64>,
}

fn root() -> Option<WireFid> {
    Some(Fid::ROOT.into())
}

fn who() -> Option<Credential> {
    Some(Credential { uid: 1000, gid: 1000, groups: vec![] })
}

impl Mount {
    async fn execute_as(&self, number: u64, op: Op) -> Result<execute_reply::Result, FsCode> {
        let request = ExecuteRequest {
            session_id: self.session.clone(),
            slot: 0,
            number,
            credential: who(),
            op: Some(op),
            ..Default::default()
        };
        match self.names.clone().execute(request).await {
            Ok(reply) => Ok(reply.into_inner().result.expect("has one")),
            Err(status) => Err(from_status(&status).code),
        }
    }

    async fn execute(&self, op: Op) -> Result<execute_reply::Result, FsCode> {
        let number = {
            let mut n = self.numbers.lock();
            *n += 1;
            *n
        };
        self.execute_as(number, op).await
    }

    async fn create(&self, name: &str) -> Result<EntryReply, FsCode> {
        let op = Op::Create(Create {
            parent: root(),
            name: name.into(),
            mode: 0o644,
            exclusive: true,
            open: true,
            read: true,
            write: true,
            ..Default::default()
        });
        match self.execute(op).await? {
            execute_reply::Result::Entry(e) => Ok(e),
            other => panic!("{other:?}"),
        }
    }

    async fn getattr(&self, fid: Option<WireFid>) -> Result<Attr, FsCode> {
        let request = GetAttrRequest { session_id: self.session.clone(), fid };
        let reply = self.names.clone().get_attr(request).await.map_err(|s| from_status(&s).code)?;
        Ok(reply.into_inner().attr.expect("has one"))
    }

    async fn lookup(&self, name: &str) -> Result<Attr, FsCode> {
        let request =
            LookupRequest { session_id: self.session.clone(), credential: who(), parent: root(), name: name.into() };
        let reply = self.names.clone().lookup(request).await.map_err(|s| from_status(&s).code)?;
        Ok(reply.into_inner().attr.expect("has one"))
    }

    async fn close(&self, fid: Option<WireFid>) {
        let request = CloseRequest {
            session_id: self.session.clone(),
            fids: fid.into_iter().collect(),
            number: 0,
            opens: Vec::new(),
        };
        self.names.clone().close(request).await.expect("closes");
    }

    async fn renew(&self, open_files: Option<Vec<WireFid>>) -> Result<RenewReply, FsCode> {
        let request = RenewRequest {
            session_id: self.session.clone(),
            restate: open_files.is_some(),
            open_files: open_files.unwrap_or_default(),
            uses: Vec::new(),
            number: 0,
            opens: Vec::new(),
        };
        self.names.clone().renew(request).await.map(Response::into_inner).map_err(|s| from_status(&s).code)
    }
}

async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An OSS that writes down what it is asked to cut and destroy, and refuses while it is told to.
#[derive(Clone, Default)]
struct FakeOss {
    truncated: Arc<Mutex<Vec<oss::TruncateRequest>>>,
    destroyed: Arc<Mutex<Vec<oss::ObjectId>>>,
    dropped: Arc<Mutex<Vec<u32>>>,
    fenced: Arc<Mutex<Vec<u64>>>,
    refuse: Arc<Mutex<bool>>,
    refused: Arc<Mutex<u32>>,
}

impl FakeOss {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound").to_string();
        let service = ObjectStoreServer::new(self.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    fn check(&self) -> Result<(), Status> {
        if !*self.refuse.lock() {
            return Ok(());
        }
        *self.refused.lock() += 1;
        Err(Status::unavailable("told to refuse"))
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[async_trait]
impl ObjectStore for FakeOss {
    async fn hello(&self, _: Request<sateen_proto::common::HelloRequest>) -> Answer<oss::HelloReply> {
        Err(Status::unimplemented("not asked by the MDS"))
    }
    async fn write(&self, _: Request<oss::WriteRequest>) -> Answer<oss::WriteReply> {
        Err(Status::unimplemented("not asked by the MDS"))
    }
    async fn read(&self, _: Request<oss::ReadRequest>) -> Answer<oss::ReadReply> {
        Err(Status::unimplemented("not asked by the MDS"))
    }
    async fn write_many(&self, _: Request<oss::WriteManyRequest>) -> Answer<oss::WriteManyReply> {
        Err(Status::unimplemented("not asked by the MDS"))
    }
    async fn read_many(&self, _: Request<oss::ReadManyRequest>) -> Answer<oss::ReadManyReply> {
        Err(Status::unimplemented("not asked by the MDS"))
    }
    async fn commit(&self, _: Request<oss::CommitRequest>) -> Answer<oss::CommitReply> {
        Err(Status::unimplemented("not asked by the MDS"))
    }
    async fn punch(&self, _: Request<oss::PunchRequest>) -> Answer<oss::ChangeReply> {
        Err(Status::unimplemented("not asked by the MDS"))
    }
    async fn truncate(&self, r: Request<oss::TruncateRequest>) -> Answer<oss::ChangeReply> {
        self.check()?;
        self.truncated.lock().push(r.into_inner());
        Ok(Response::new(oss::ChangeReply { verifier: vec![0; 16], allocated_delta: -4096 }))
    }
    async fn destroy(&self, r: Request<oss::DestroyRequest>) -> Answer<oss::DestroyReply> {
        self.check()?;
        self.destroyed.lock().extend(r.into_inner().objects);
        Ok(Response::new(oss::DestroyReply {}))
    }
    async fn get_attr(&self, _: Request<oss::GetAttrRequest>) -> Answer<oss::GetAttrReply> {
        Err(Status::unimplemented("not asked by the MDS"))
    }
    async fn extents(&self, _: Request<oss::ExtentsRequest>) -> Answer<oss::ExtentsReply> {
        Err(Status::unimplemented("not asked by the MDS"))
    }
    async fn stat_fs(&self, _: Request<oss::StatFsRequest>) -> Answer<oss::StatFsReply> {
        Err(Status::unimplemented("not asked by the MDS"))
    }
    async fn drop_file_system(&self, r: Request<oss::DropFileSystemRequest>) -> Answer<oss::DropFileSystemReply> {
        self.check()?;
        self.dropped.lock().push(r.into_inner().fs_id);
        Ok(Response::new(oss::DropFileSystemReply {}))
    }
    async fn fence(&self, r: Request<oss::FenceRequest>) -> Answer<oss::FenceReply> {
        self.check()?;
        self.fenced.lock().extend(r.into_inner().ended_writers);
        Ok(Response::new(oss::FenceReply {}))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_client_mounts_creates_lists_and_renames() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mds = Mds::start(dir.path()).await;
    mds.create_fs().await;
    assert_eq!(mds.register("127.0.0.1:1", 1).await, [0]);
    let m = mds.mount().await;
    for i in 0..25 {
        let entry = m.create(&format!("f{i:02}")).await.expect("creates");
        assert_eq!(entry.layout.expect("opened").components[0].osts, [0]);
    }
    assert_eq!(m.create("f00").await.expect_err("taken"), FsCode::Exists);
    let (mut names, mut after, mut pages) = (Vec::new(), 0, 0);
    loop {
        let request = ReadDirRequest {
            session_id: m.session.clone(),
            credential: who(),
            fid: root(),
            after,
            max: 10,
            with_attr: true,
        };
        let page = m.names.clone().read_dir(request).await.expect("lists").into_inner();
        pages += 1;
        after = page.entries.last().map_or(after, |e| e.cookie);
        names.extend(page.entries.into_iter().map(|e| String::from_utf8(e.name).expect("text")));
        if page.end {
            break;
        }
    }
    assert_eq!(names, (0..25).map(|i| format!("f{i:02}")).collect::<Vec<_>>());
    assert_eq!(pages, 3);
    let rename =
        Rename { parent: root(), name: "f00".into(), new_parent: root(), new_name: "g".into(), ..Default::default() };
    let fid = m.lookup("f00").await.expect("found").fid;
    m.execute(Op::Rename(rename)).await.expect("renames");
    assert_eq!(m.lookup("g").await.expect("found").fid, fid);
    assert_eq!(m.lookup("f00").await.expect_err("moved"), FsCode::NotFound);
    let request = FidToPathRequest { fs_name: "scratch".into(), fid };
    let paths = mds.names.clone().fid_to_path(request).await.expect("has one").into_inner().paths;
    assert_eq!(paths, [b"g".to_vec()]);
    let statfs = m.names.clone().stat_fs(StatFsRequest { session_id: m.session.clone() }).await;
    let statfs = statfs.expect("answers").into_inner();
    assert_eq!((statfs.total, statfs.inodes_used), (1 << 40, 26));
    mds.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_resends_get_their_answers_and_open_files_survive_until_said_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let fake = FakeOss::default();
    let oss = fake.start().await;
    let mds = Mds::start(dir.path()).await;
    mds.create_fs().await;
    mds.register(&oss, 1).await;
    let mut m = mds.mount().await;
    let fid = m.create("f").await.expect("creates").attr.expect("has one").fid;
    let unlink = || Op::Unlink(Unlink { parent: root(), name: "f".into() });
    m.execute_as(50, unlink()).await.expect("removes the name");
    mds.stop().await;

    let mds = Mds::start(dir.path()).await;
    m.names = mds.names.clone();
    m.execute_as(50, unlink()).await.expect("the stored answer, not NotFound");
    assert_eq!(m.getattr(fid).await.expect("still there").nlink, 0);
    assert!(m.renew(None).await.expect("known").restate);
    assert!(!m.renew(Some(fid.into_iter().collect())).await.expect("known").restate);
    mds.register(&oss, 1).await;
    assert_eq!(m.getattr(fid).await.expect("open").nlink, 0);
    m.close(fid).await;
    assert_eq!(m.getattr(fid).await.expect_err("gone with the last close"), FsCode::Stale);
    eventually("the destroy of its object", || async { fake.destroyed.lock().len() == 1 }).await;
    mds.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_is_answered_when_the_osts_have_cut() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let fake = FakeOss::default();
    let oss = fake.start().await;
    let mds = Mds::start(dir.path()).await;
    mds.create_fs().await;
    mds.register(&oss, 1).await;
    let m = Arc::new(mds.mount().await);
    let fid = m.create("f").await.expect("creates").attr.expect("has one").fid;
    let done = WriteDone { fid, end: 1 << 20, allocated_delta: 1 << 20, ..Default::default() };
    m.execute(Op::WriteDone(done)).await.expect("writes");
    *fake.refuse.lock() = true;
    let cut = Op::SetAttr(SetAttr { fid, size: Some(5), ..Default::default() });
    let waiting = tokio::spawn({
        let m = m.clone();
        async move { m.execute(cut).await }
    });
    let looker = m.clone();
    let size_is_5 = || async { looker.getattr(fid).await.expect("exists").size == 5 };
    eventually("the durable truncate", size_is_5).await;
    assert!(!waiting.is_finished());
    let open = OpenRequest { session_id: m.session.clone(), credential: who(), fid, write: true, ..Default::default() };
    let refused = m.names.clone().open(open.clone()).await.expect_err("objects are not cut yet");
    assert_eq!(from_status(&refused).code, FsCode::Unavailable);
    eventually("an attempt", || async { *fake.refused.lock() > 0 }).await;
    *fake.refuse.lock() = false;
    waiting.await.expect("joins").expect("cuts");
    let asked = fake.truncated.lock().clone();
    assert_eq!((asked[0].ost, asked[0].size, asked[0].chunk_log2), (0, 5, 17));
    assert!(asked[0].writer > 0 && asked[0].generation > 0, "attempts that were given up are shut out: {asked:?}");
    m.names.clone().open(open).await.expect("opens");
    assert_eq!(m.getattr(fid).await.expect("exists").blocks, ((1 << 20) - 4096) / 512);
    mds.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_client_loses_its_session_and_what_only_it_had_open() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let fake = FakeOss::default();
    let oss = fake.start().await;
    let mds = Mds::start(dir.path()).await;
    mds.create_fs().await;
    mds.register(&oss, 1).await;
    let (silent, lively) = (mds.mount().await, mds.mount().await);
    let fid = silent.create("f").await.expect("creates").attr.expect("has one").fid;
    lively.execute(Op::Unlink(Unlink { parent: root(), name: "f".into() })).await.expect("removes");
    assert_eq!(lively.getattr(fid).await.expect("open elsewhere").nlink, 0);
    eventually("the end of the file", || async { lively.getattr(fid).await == Err(FsCode::Stale) }).await;
    assert_eq!(silent.renew(None).await.expect_err("expired"), FsCode::Stale);
    assert_eq!(silent.create("g").await.expect_err("expired"), FsCode::Stale);
    mds.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_file_system_is_dropped_on_every_ost_and_its_name_is_free_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let fake = FakeOss::default();
    let oss = fake.start().await;
    let mds = Mds::start(dir.path()).await;
    mds.create_fs().await;
    mds.register(&oss, 1).await;
    let m = mds.mount().await;
    m.create("f").await.expect("creates");
    let mut admin = mds.cluster.clone();
    let delete = |force| DeleteFileSystemRequest { name: "scratch".into(), force };
    let busy = admin.delete_file_system(delete(false)).await.expect_err("mounted");
    assert_eq!(from_status(&busy).code, FsCode::Busy);
    *fake.refuse.lock() = true;
    admin.delete_file_system(delete(true)).await.expect("begins");
    assert_eq!(m.create("g").await.expect_err("deleted"), FsCode::Stale);
    let get = || GetFileSystemRequest { name: "scratch".into() };
    let fs = admin.get_file_system(get()).await.expect("still listed").into_inner();
    assert_eq!(fs.state(), FileSystemState::Deleting);
    mds.stop().await;

    let mds = Mds::start(dir.path()).await;
    *fake.refuse.lock() = false;
    mds.register(&oss, 1).await;
    let admin = mds.cluster.clone();
    eventually("the end of the deletion", || async {
        admin.clone().get_file_system(get()).await.is_err_and(|s| from_status(&s).code == FsCode::NotFound)
    })
    .await;
    assert_eq!(*fake.dropped.lock(), [1]);
    assert!(!dir.path().join("fs/1").exists());
    mds.create_fs().await;
    let fs = admin.clone().get_file_system(get()).await.expect("new").into_inner();
    assert_eq!(fs.id, 2, "numbers are never used again");
    mds.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unlinked_file_that_is_opened_again_and_again_is_never_half_gone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mds = Mds::start(dir.path()).await;
    mds.create_fs().await;
    mds.register("127.0.0.1:1", 1).await;
    let m = Arc::new(mds.mount().await);
    for i in 0..40 {
        let fid = m.create(&format!("f{i}")).await.expect("creates").attr.expect("has one").fid;
        m.close(fid).await;
        let opener = tokio::spawn({
            let m = m.clone();
            async move {
                let request = OpenRequest {
                    session_id: m.session.clone(),
                    credential: who(),
                    fid,
                    read: true,
                    ..Default::default()
                };
                let opened = m.names.clone().open(request).await.is_ok();
                (opened, if opened { Some(m.getattr(fid).await) } else { None })
            }
        });
        m.execute(Op::Unlink(Unlink { parent: root(), name: format!("f{i}").into() })).await.expect("removes");
        let (opened, attr) = opener.await.expect("joins");
        if opened {
            attr.expect("asked").expect("an open file exists");
            m.getattr(fid).await.expect("and stays until it is closed");
            m.close(fid).await;
        }
        assert_eq!(m.getattr(fid).await.expect_err("gone"), FsCode::Stale);
    }
    mds.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_get_codes_and_hints() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mds = Mds::start(dir.path()).await;
    let mut names = mds.names.clone();
    let hello = Some(version::hello("test"));
    let open = |fs: &str, hello| OpenSessionRequest { hello, fs_name: fs.into(), ..Default::default() };
    let err = from_status(&names.open_session(open("nope", hello.clone())).await.expect_err("unknown"));
    assert_eq!(err.code, FsCode::NotFound);
    assert!(err.hint.is_some());
    let mut old = version::hello("test");
    (old.protocol_min, old.protocol_max) = (99, 99);
    let err = from_status(&names.open_session(open("nope", Some(old))).await.expect_err("version"));
    assert_eq!(err.code, FsCode::VersionMismatch);
    let stale = GetAttrRequest { session_id: vec![9; 16], fid: root() };
    assert_eq!(from_status(&names.get_attr(stale).await.expect_err("no session")).code, FsCode::Stale);
    let short = GetAttrRequest { session_id: vec![9; 3], fid: root() };
    assert_eq!(from_status(&names.get_attr(short).await.expect_err("no id")).code, FsCode::Invalid);
    let mut cluster = mds.cluster.clone();
    let bad_name = CreateFileSystemRequest { name: "much-too-long".into(), ..Default::default() };
    let err = from_status(&cluster.create_file_system(bad_name).await.expect_err("name"));
    assert_eq!(err.code, FsCode::Invalid);
    assert!(err.hint.is_some());
    mds.create_fs().await;
    let again = CreateFileSystemRequest { name: "scratch".into(), ..Default::default() };
    assert_eq!(from_status(&cluster.create_file_system(again).await.expect_err("taken")).code, FsCode::Exists);
    let m = mds.mount().await;
    assert_eq!(m.create("f").await.expect_err("no OST yet"), FsCode::NoSpace);
    assert!(mds.address.port() > 0);
    mds.stop().await;
}
