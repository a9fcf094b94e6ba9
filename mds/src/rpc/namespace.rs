//! `sateen.mds.v1.Namespace`.

use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use sateen_proto::convert::{bad, credential, fid, required, session_id, use_from_wire};
use sateen_proto::mds::namespace_server::Namespace as NamespaceService;
use sateen_proto::mds::*;
use sateen_proto::status::to_detail;
use sateen_proto::version;
use sateen_types::limits::{CLOSES_MAX, EXECUTE_MANY_MAX, READ_DIRS_MAX, READDIR_ENTRIES_MAX, SESSION_SLOTS_MAX};
use sateen_types::op::Access;
use sateen_types::{Capability, Fid, FsName, FsResult, Name, SessionId, Space, Using, XattrName};
use tonic::{Request, async_trait};

use super::{Answer, PROGRAM, answer, log_own};
use crate::clients::OPENS_MAX;
use crate::cluster::Cluster;
use crate::command;
use crate::fencing;
use crate::fs::{FileSystem, Looked, Stated};
use crate::namespace::{self, BRIEF_PAGE, Named, ReadDirPage};
use crate::registry::OstState;
use crate::store::ReadTxn;

/// Longest name of a client.
const CLIENT_BYTES_MAX: usize = 255;
/// Disk one inode takes on the MDT, bytes, with its names and layout: for the estimate of how many more fit.
const INODE_BYTES: u64 = 1024;

/// See the module.
pub struct Service {
    pub(super) cluster: Arc<Cluster>,
}

#[async_trait]
impl NamespaceService for Service {
    async fn open_session(&self, request: Request<OpenSessionRequest>) -> Answer<OpenSessionReply> {
        answer(self.open_session(request.into_inner()).await)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Answer<RenewReply> {
        answer(self.renew(request.into_inner()).await)
    }

    async fn close_session(&self, request: Request<CloseSessionRequest>) -> Answer<CloseSessionReply> {
        answer(self.close_session(request.get_ref()).await.map(|()| CloseSessionReply {}))
    }

    async fn execute(&self, request: Request<ExecuteRequest>) -> Answer<ExecuteReply> {
        answer(self.execute(request.into_inner()).await)
    }

    async fn execute_many(&self, request: Request<ExecuteManyRequest>) -> Answer<ExecuteManyReply> {
        answer(self.execute_many(request.into_inner()).await)
    }

    async fn lookup(&self, request: Request<LookupRequest>) -> Answer<EntryReply> {
        let r = request.into_inner();
        let found = async {
            let ((session, fs), who) = (self.fs(&r.session_id)?, credential(r.credential)?);
            let parent = fid(r.parent, "parent")?;
            let name = if r.name == b".." { None } else { Some(Name::parse(&r.name)?) };
            fs.await_release(session, parent).await?;
            let question = move |tx: &dyn ReadTxn| namespace::lookup(tx, &who, parent, name.as_ref());
            let Looked { named, in_use } = fs.look(session, question).await?;
            let (attr, cookie) = (Some((&named.attr).into()), named.cookie);
            Ok(EntryReply { attr, layout: None, existed: false, in_use, cookie })
        };
        answer(found.await)
    }

    async fn get_attr(&self, request: Request<GetAttrRequest>) -> Answer<AttrReply> {
        let r = request.into_inner();
        let looked = async {
            let ((session, fs), file) = (self.fs(&r.session_id)?, fid(r.fid, "fid")?);
            let question = move |tx: &dyn ReadTxn| namespace::get_attr(tx, file).map(Named::from);
            let Looked { named, in_use } = fs.look(session, question).await?;
            Ok(AttrReply { attr: Some((&named.attr).into()), in_use })
        };
        answer(looked.await)
    }

    async fn read_dir(&self, request: Request<ReadDirRequest>) -> Answer<ReadDirReply> {
        answer(self.read_dir(request.into_inner()).await)
    }

    async fn read_dirs(&self, request: Request<ReadDirsRequest>) -> Answer<ReadDirsReply> {
        answer(self.read_dirs(request.into_inner()).await)
    }

    async fn read_link(&self, request: Request<ReadLinkRequest>) -> Answer<ReadLinkReply> {
        let r = request.into_inner();
        let target = self.of_file(&r.session_id, r.fid, namespace::read_link).await;
        answer(target.map(|target| ReadLinkReply { target }))
    }

    async fn get_xattr(&self, request: Request<GetXattrRequest>) -> Answer<GetXattrReply> {
        let r = request.into_inner();
        let value = async {
            let (who, name) = (credential(r.credential)?, XattrName::parse(&r.name)?);
            self.of_file(&r.session_id, r.fid, move |tx, f| namespace::get_xattr(tx, &who, f, &name)).await
        };
        answer(value.await.map(|value| GetXattrReply { value }))
    }

    async fn list_xattr(&self, request: Request<ListXattrRequest>) -> Answer<ListXattrReply> {
        let r = request.into_inner();
        let names = async {
            let who = credential(r.credential)?;
            self.of_file(&r.session_id, r.fid, move |tx, f| namespace::list_xattr(tx, &who, f)).await
        };
        answer(names.await.map(|names| ListXattrReply { names }))
    }

    async fn open(&self, request: Request<OpenRequest>) -> Answer<OpenReply> {
        let r = request.into_inner();
        let opened = async {
            let (session, fs) = self.fs(&r.session_id)?;
            let wanted = Access { read: r.read, write: r.write, exec: r.exec };
            let (who, file) = (credential(r.credential)?, fid(r.fid, "fid")?);
            let (attr, layout, remote, grant) = fs.open(session, who, (file, r.number), wanted).await?;
            let (layout, remote) = (layout.as_ref().map(Into::into), remote.as_ref().map(Into::into));
            Ok(OpenReply { attr: Some((&attr).into()), layout, grant: Some(grant.into()), remote })
        };
        answer(opened.await)
    }

    async fn close(&self, request: Request<CloseRequest>) -> Answer<CloseReply> {
        let r = request.into_inner();
        let closed = async {
            let (session, fs) = self.fs(&r.session_id)?;
            if r.fids.len() > CLOSES_MAX {
                return Err(bad("fids", format_args!("{}, at most {CLOSES_MAX}", r.fids.len())));
            }
            let opens = numbered(r.fids, r.opens)?;
            fs.close(session, &opens, r.number).await?;
            Ok(CloseReply {})
        };
        answer(closed.await)
    }

    async fn get_layout(&self, request: Request<GetLayoutRequest>) -> Answer<LayoutReply> {
        let r = request.into_inner();
        let layout = self.of_file(&r.session_id, r.fid, namespace::get_layout).await;
        answer(layout.map(|l| LayoutReply { layout: Some((&l).into()) }))
    }

    async fn get_default_layout(&self, request: Request<GetDefaultLayoutRequest>) -> Answer<DefaultLayoutReply> {
        let r = request.into_inner();
        let found = self.of_file(&r.session_id, r.fid, namespace::default_layout).await;
        answer(found.map(|(layout, own)| DefaultLayoutReply { layout: Some((&layout).into()), own }))
    }

    async fn stat_fs(&self, request: Request<StatFsRequest>) -> Answer<StatFsReply> {
        answer(self.stat_fs(request.get_ref()).await)
    }

    async fn fid_to_path(&self, request: Request<FidToPathRequest>) -> Answer<FidToPathReply> {
        let r = request.into_inner();
        let paths = async {
            let name: FsName = r.fs_name.parse()?;
            let (fs, fid) = (self.cluster.by_name(&name)?, fid(r.fid, "fid")?);
            fs.read(move |tx| namespace::paths_of(tx, fid)).await
        };
        answer(paths.await.map(|paths| FidToPathReply { paths }))
    }
}

impl Service {
    /// The session of a request and its file system; the session counts as heard of.
    fn fs(&self, session: &[u8]) -> FsResult<(SessionId, Arc<FileSystem>)> {
        let session = session_id(session)?;
        Ok((session, self.cluster.by_session(session)?))
    }

    /// A question about one file.
    async fn of_file<T: Send + 'static>(
        &self,
        session: &[u8],
        file: Option<sateen_proto::common::Fid>,
        question: impl Fn(&dyn ReadTxn, Fid) -> FsResult<T> + Send + 'static,
    ) -> FsResult<T> {
        let (session, fs) = self.fs(session)?;
        let file = fid(file, "fid")?;
        fs.await_release(session, file).await?;
        fs.ask(move |tx| question(tx, file)).await
    }

    async fn open_session(&self, r: OpenSessionRequest) -> FsResult<OpenSessionReply> {
        let hello = version::welcome(&required(r.hello, "hello")?, self.cluster.id(), PROGRAM)?;
        let name: FsName = r.fs_name.parse()?;
        if r.client.len() > CLIENT_BYTES_MAX {
            return Err(bad("client", format_args!("has {} bytes, at most {CLIENT_BYTES_MAX}", r.client.len())));
        }
        let fs = self.cluster.by_name(&name)?;
        if r.writer != 0 && self.cluster.is_ended(r.writer) {
            return Err(
                bad("writer", format_args!("{} was an expired session's", r.writer)).with_hint("choose another")
            );
        }
        if !r.follows.is_empty() {
            fencing::end_followed(&self.cluster, &fs, session_id(&r.follows)?).await?;
        }
        let session = SessionId(rand::random());
        let root = fs.open_session(session, r.client.clone(), r.writer).await?;
        tracing::info!(fs = %name, client = r.client, %session, "a session began");
        Ok(OpenSessionReply {
            hello: Some(hello),
            session_id: session.0.to_vec(),
            fs_id: fs.info.id.0,
            slots: SESSION_SLOTS_MAX,
            lease_ms: self.cluster.lease().as_millis().min(u128::from(u32::MAX)) as u32,
            compression: sateen_proto::common::Compression::from(fs.info.compression).into(),
            root: Some((&root).into()),
        })
    }

    async fn renew(&self, r: RenewRequest) -> FsResult<RenewReply> {
        let (session, fs) = self.fs(&r.session_id)?;
        if r.open_files.len() > OPENS_MAX {
            return Err(bad("open_files", format_args!("{}, at most {OPENS_MAX}", r.open_files.len())));
        }
        if !r.uses.is_empty() && r.uses.len() != r.open_files.len() {
            return Err(bad("uses", format_args!("{} of {} open files", r.uses.len(), r.open_files.len())));
        }
        // A client that says nothing of uses may write and keeps nothing.
        let uses = r.uses.into_iter().map(Some).chain(std::iter::repeat(None));
        let stated = |((fid, number), stated): ((Fid, u64), Option<u32>)| {
            let (using, keeps) = stated.map_or(Ok((Using::Writing, Capability::None)), use_from_wire)?;
            Ok(Stated { fid, number, using, keeps })
        };
        let opens = numbered(r.open_files, r.opens)?;
        let files = opens.into_iter().zip(uses).map(stated).collect::<FsResult<Vec<_>>>()?;
        let restate = fs.renew(session, r.restate.then_some(&files), r.number).await?;
        Ok(RenewReply { restate, ost_map_version: self.cluster.registry.read().version() })
    }

    async fn close_session(&self, r: &CloseSessionRequest) -> FsResult<()> {
        let (session, fs) = self.fs(&r.session_id)?;
        tracing::info!(fs = %fs.info.name, %session, "a session ended");
        fs.close_session(session).await
    }

    async fn execute(&self, r: ExecuteRequest) -> FsResult<ExecuteReply> {
        let (session, fs) = self.fs(&r.session_id)?;
        let request = command::Request {
            session,
            slot: r.slot,
            number: r.number,
            credential: credential(r.credential)?,
            op: required(r.op, "op")?.try_into()?,
            hold: r.hold,
            open: r.open_number,
            logged: None,
        };
        let holds = request.hold;
        let (reply, grant, remote) = fs.execute(request).await?;
        let held = if holds { fs.template_if_held(session, &reply).await? } else { None };
        Ok(ExecuteReply {
            grant: grant.map(Into::into),
            held: held.as_ref().map(Into::into),
            remote: remote.as_ref().map(Into::into),
            ..(&reply).into()
        })
    }

    /// All at once, so that few commits carry them.
    async fn execute_many(&self, r: ExecuteManyRequest) -> FsResult<ExecuteManyReply> {
        if !(1..=EXECUTE_MANY_MAX).contains(&r.changes.len()) {
            return Err(bad("changes", format_args!("{} is not 1 to {EXECUTE_MANY_MAX}", r.changes.len())));
        }
        if r.changes.iter().any(|change| !matches!(change.op, Some(execute_request::Op::WriteDone(_)))) {
            // One that waits for other clients would keep the rest from their answers.
            return Err(bad("changes", format_args!("one of them is not a WriteDone")).with_hint("use Execute"));
        }
        let outcomes = join_all(r.changes.into_iter().map(|change| self.execute(change))).await;
        let outcomes = outcomes.into_iter().map(|outcome| match outcome {
            Ok(reply) => execute_outcome::Outcome::Reply(reply),
            Err(error) => {
                log_own(&error);
                execute_outcome::Outcome::Error(to_detail(error))
            }
        });
        let outcomes = outcomes.map(|outcome| ExecuteOutcome { outcome: Some(outcome) }).collect();
        Ok(ExecuteManyReply { outcomes })
    }

    async fn read_dir(&self, r: ReadDirRequest) -> FsResult<ReadDirReply> {
        let (session, fs) = self.fs(&r.session_id)?;
        let (who, dir) = (credential(r.credential)?, fid(r.fid, "fid")?);
        if !(1..=READDIR_ENTRIES_MAX).contains(&r.max) {
            return Err(bad("max", format_args!("{} is not 1 to {READDIR_ENTRIES_MAX}", r.max)));
        }
        fs.await_release(session, dir).await?;
        let question = move |tx: &dyn ReadTxn, max: u32| namespace::read_dir(tx, &who, dir, r.after, max as usize);
        let brief = r.max.min(BRIEF_PAGE);
        let mut page = match fs.ask_memory(&|tx: &dyn ReadTxn| question(tx, brief)) {
            Some(Ok(page)) if page.end || brief == r.max => page,
            _ => fs.read(move |tx| question(tx, r.max)).await?,
        };
        if r.with_attr {
            fs.add_attributes(session, &mut page.entries).await?;
        }
        Ok(ReadDirReply {
            entries: page.entries.iter().map(Into::into).collect(),
            end: page.end,
            parent: Some(page.parent.into()),
        })
    }

    async fn read_dirs(&self, r: ReadDirsRequest) -> FsResult<ReadDirsReply> {
        let (session, fs) = self.fs(&r.session_id)?;
        let who = credential(r.credential)?;
        if !(1..=READ_DIRS_MAX).contains(&r.fids.len()) {
            return Err(bad("fids", format_args!("{} is not 1 to {READ_DIRS_MAX}", r.fids.len())));
        }
        if !(1..=READDIR_ENTRIES_MAX).contains(&r.max) {
            return Err(bad("max", format_args!("{} is not 1 to {READDIR_ENTRIES_MAX}", r.max)));
        }
        let dirs = r.fids.into_iter().map(Fid::try_from).collect::<FsResult<Vec<_>>>()?;
        // One that is free now stays so; nobody is asked to give one up that perhaps nobody wants.
        let dirs: Vec<_> = dirs.into_iter().map(|dir| (dir, !fs.is_held_elsewhere(session, dir))).collect();
        let mut pages = fs.read(move |tx| Ok(namespace::read_dirs(tx, &who, &dirs, r.max as usize))).await?;
        let lengths: Vec<usize> = pages.iter().map(|page| page.as_ref().map_or(0, |page| page.entries.len())).collect();
        let mut entries: Vec<_> = pages.iter_mut().flatten().flat_map(|page| page.entries.drain(..)).collect();
        fs.add_attributes(session, &mut entries).await?;
        let mut entries = entries.iter();
        let listing = |(page, length): (Option<ReadDirPage>, usize)| DirListing {
            page: page.map(|page| ReadDirReply {
                entries: entries.by_ref().take(length).map(Into::into).collect(),
                end: page.end,
                parent: Some(page.parent.into()),
            }),
        };
        Ok(ReadDirsReply { listings: pages.into_iter().zip(lengths).map(listing).collect() })
    }

    async fn stat_fs(&self, r: &StatFsRequest) -> FsResult<StatFsReply> {
        let (_, fs) = self.fs(&r.session_id)?;
        let mut sum = Space::default();
        for ost in self.cluster.registry.read().list(Instant::now()) {
            if ost.state != OstState::Down {
                sum.total = sum.total.saturating_add(ost.space.total);
                sum.used = sum.used.saturating_add(ost.space.used);
                sum.available = sum.available.saturating_add(ost.space.available);
            }
        }
        let mdt = self.cluster.disk.space()?;
        let inodes_used = fs.ask(namespace::inode_count).await?;
        Ok(StatFsReply {
            total: sum.total,
            used: sum.used,
            available: sum.available,
            inodes_used,
            inodes_free: mdt.available / INODE_BYTES,
            mdt_total: mdt.total,
            mdt_used: mdt.used,
            mdt_available: mdt.available,
        })
    }
}

/// Files with the numbers of their opens; without any all are 0.
fn numbered(fids: Vec<sateen_proto::common::Fid>, opens: Vec<u64>) -> FsResult<Vec<(Fid, u64)>> {
    if !opens.is_empty() && opens.len() != fids.len() {
        return Err(bad("opens", format_args!("{} numbers for {} files", opens.len(), fids.len())));
    }
    let numbers = opens.into_iter().chain(std::iter::repeat(0));
    fids.into_iter().zip(numbers).map(|(file, number)| Ok((Fid::try_from(file)?, number))).collect()
}
