//! Released files of the scripted MDS: what is loaded of them when a test says so, and who has asked.

use std::time::Duration;

use parking_lot::Mutex;
use sateen_proto::mds::repositories_server::Repositories;
use sateen_proto::{convert, mds, status};
use sateen_types::repository::{Fetch, Filled, HsmFlags};
use sateen_types::{Extent, Fid, FsError, Layout, Remote};
use tokio::sync::Notify;
use tonic::{Request, Response, Status};

use super::mds::{FakeMds, instantiate};

/// What clients have asked for, and what is to go wrong.
#[derive(Default)]
pub struct Bucket {
    /// Ranges of every Load, and whether the reader goes on in a row.
    pub asked: Mutex<Vec<(Extent, bool)>>,
    /// The answer to every Load.
    pub error: Mutex<Option<FsError>>,
    /// What is stored of released files and not yet durable.
    filled: Mutex<Vec<Filled>>,
    pub(super) changed: Notify,
}

impl FakeMds {
    /// A file becomes a released one of `size` bytes, in a new layout.
    pub fn release(&self, fid: Fid, size: u64) {
        let mut state = self.state.lock();
        let inode = state.inodes.get_mut(&fid).expect("there");
        inode.remote = Some(Remote::none_loaded(size));
        inode.attr.size = size;
        let next = inode.layout.components.iter().map(|c| c.id.0).max().unwrap_or(0);
        for component in &mut inode.layout.components {
            component.osts.clear();
            component.id.0 += next;
        }
        inode.layout.generation += 1;
    }

    /// What a worker is given for a range, which has OSTs from now on.
    pub fn fetch(&self, fid: Fid, range: Extent) -> Fetch {
        let mut state = self.state.lock();
        let inode = state.inodes.get_mut(&fid).expect("there");
        instantiate(&mut inode.layout, range.start, range.end - range.start);
        let (layout, size) = (inode.layout.clone(), inode.attr.size);
        Fetch { fid, key: b"key".to_vec(), etag: "\"1\"".to_owned(), range, layout, size, urgent: true }
    }

    /// A worker has stored a range, and not yet committed it.
    pub fn filled(&self, filled: Filled) {
        self.bucket.filled.lock().push(filled);
        self.bucket.changed.notify_waiters();
    }

    /// A worker has stored a range.
    pub fn loaded(&self, fid: Fid, range: Extent) {
        self.bucket.filled.lock().retain(|filled| filled.range != range);
        let mut state = self.state.lock();
        let inode = state.inodes.get_mut(&fid).expect("there");
        if let Some(remote) = &mut inode.remote {
            remote.add(range);
        }
        inode.remote = inode.remote.take().filter(|remote| !remote.all_loaded());
        drop(state);
        self.bucket.changed.notify_waiters();
    }

    /// Loads fail from now on, or (`None`) do not any more.
    pub fn fail_loads(&self, error: Option<FsError>) {
        *self.bucket.error.lock() = error;
        self.bucket.changed.notify_waiters();
    }

    /// Every range that was asked for so far.
    pub fn asked(&self) -> Vec<Extent> {
        self.bucket.asked.lock().iter().map(|(range, _)| *range).collect()
    }

    fn reply(&self, fid: Fid) -> Option<(Option<Remote>, Layout)> {
        let state = self.state.lock();
        state.inodes.get(&fid).map(|inode| (inode.remote.clone(), inode.layout.clone()))
    }
}

type Reply<T> = Result<Response<T>, Status>;

fn unknown<T>() -> Reply<T> {
    Err(Status::unimplemented("the fake does not know this"))
}

#[tonic::async_trait]
impl Repositories for FakeMds {
    async fn load(&self, r: Request<mds::LoadRequest>) -> Reply<mds::LoadReply> {
        let r = r.into_inner();
        self.check(&r.session_id)?;
        let fid = convert::fid(r.fid, "fid").map_err(status::to_status)?;
        let range = convert::loaded_range(r.range).map_err(status::to_status)?;
        self.bucket.asked.lock().push((range, r.sequential));
        let until = tokio::time::Instant::now() + Duration::from_millis(r.hold_ms.into());
        loop {
            let changed = self.bucket.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(error) = self.bucket.error.lock().clone() {
                return Err(status::to_status(error));
            }
            let Some((remote, layout)) = self.reply(fid) else {
                return Err(status::to_status(sateen_types::FsCode::Stale.into()));
            };
            let filled = if r.reading { self.bucket.filled.lock().clone() } else { Vec::new() };
            let missing = |remote: &Remote| Filled::without(remote.missing(remote.chunks(range)), &filled);
            let waits = remote.as_ref().is_some_and(|remote| !missing(remote).is_empty());
            let over = waits && tokio::time::timeout_at(until, changed).await.is_err();
            if !waits || over {
                let remote = remote.as_ref().map(Into::into);
                return Ok(Response::new(mds::LoadReply {
                    remote,
                    layout: Some((&layout).into()),
                    filled: filled.iter().map(Into::into).collect(),
                }));
            }
        }
    }

    async fn hsm_state(&self, r: Request<mds::HsmStateRequest>) -> Reply<mds::HsmStateReply> {
        let r = r.into_inner();
        self.check(&r.session_id)?;
        let fid = convert::fid(r.fid, "fid").map_err(status::to_status)?;
        let remote = self.reply(fid).and_then(|(remote, _)| remote);
        let flags = (HsmFlags::EXISTS | HsmFlags::ARCHIVED).set(HsmFlags::RELEASED, remote.is_some());
        let loaded_bytes = remote.as_ref().map_or(0, Remote::loaded_bytes);
        Ok(Response::new(mds::HsmStateReply { flags: flags.0, repository: 1, loaded_bytes, ..Default::default() }))
    }

    async fn create_repository(&self, _: Request<mds::CreateRepositoryRequest>) -> Reply<mds::Repository> {
        unknown()
    }
    async fn update_repository(&self, _: Request<mds::UpdateRepositoryRequest>) -> Reply<mds::Repository> {
        unknown()
    }
    async fn get_repository(&self, _: Request<mds::GetRepositoryRequest>) -> Reply<mds::Repository> {
        unknown()
    }
    async fn list_repositories(&self, _: Request<mds::ListRepositoriesRequest>) -> Reply<mds::ListRepositoriesReply> {
        unknown()
    }
    async fn delete_repository(&self, _: Request<mds::DeleteRepositoryRequest>) -> Reply<mds::DeleteRepositoryReply> {
        unknown()
    }
    async fn start_import(&self, _: Request<mds::StartImportRequest>) -> Reply<mds::Repository> {
        unknown()
    }
    async fn start_export(&self, _: Request<mds::StartExportRequest>) -> Reply<mds::Repository> {
        unknown()
    }
    async fn list_conflicts(&self, _: Request<mds::ListConflictsRequest>) -> Reply<mds::ListConflictsReply> {
        unknown()
    }
    async fn read_report(&self, _: Request<mds::ReadReportRequest>) -> Reply<mds::ReadReportReply> {
        unknown()
    }
    async fn start_task(&self, _: Request<mds::StartTaskRequest>) -> Reply<mds::Task> {
        unknown()
    }
    async fn get_task(&self, _: Request<mds::GetTaskRequest>) -> Reply<mds::Task> {
        unknown()
    }
    async fn list_tasks(&self, _: Request<mds::ListTasksRequest>) -> Reply<mds::ListTasksReply> {
        unknown()
    }
    async fn cancel_task(&self, _: Request<mds::CancelTaskRequest>) -> Reply<mds::Task> {
        unknown()
    }
    async fn get_auto_release(&self, _: Request<mds::GetAutoReleaseRequest>) -> Reply<mds::AutoRelease> {
        unknown()
    }
    async fn set_auto_release(&self, _: Request<mds::SetAutoReleaseRequest>) -> Reply<mds::AutoRelease> {
        unknown()
    }
    async fn resolve_conflict(&self, _: Request<mds::ResolveConflictRequest>) -> Reply<mds::ResolveConflictReply> {
        unknown()
    }
    async fn events(&self, _: Request<mds::EventsRequest>) -> Reply<mds::EventsReply> {
        unknown()
    }
    async fn confirm(&self, _: Request<mds::ConfirmRequest>) -> Reply<mds::ConfirmReply> {
        unknown()
    }
    async fn hsm_request(&self, _: Request<mds::HsmRequestRequest>) -> Reply<mds::HsmRequestReply> {
        unknown()
    }
    async fn take(&self, r: Request<mds::TakeRequest>) -> Reply<mds::TakeReply> {
        self.check(&r.into_inner().session_id)?;
        Ok(Response::new(mds::TakeReply::default()))
    }
    async fn known(&self, _: Request<mds::KnownRequest>) -> Reply<mds::KnownReply> {
        unknown()
    }
    async fn import(&self, _: Request<mds::ImportRequest>) -> Reply<mds::ImportReply> {
        unknown()
    }
    async fn filled(&self, _: Request<mds::FilledRequest>) -> Reply<mds::FilledReply> {
        unknown()
    }
    async fn finish(&self, r: Request<mds::FinishRequest>) -> Reply<mds::FinishReply> {
        self.check(&r.into_inner().session_id)?;
        Ok(Response::new(mds::FinishReply {}))
    }
}
