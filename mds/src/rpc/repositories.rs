//! `sateen.mds.v1.Repositories`.

use std::sync::Arc;

use sateen_proto::convert::{
    conflict_key, conflict_policy, conflicts_page, credential, events_page, fid, hold, hsm_operation, import_page,
    known_answer, known_question, loaded_range, ost_verifiers, required, resolution, session_id, take_bounds,
};
use sateen_proto::mds::repositories_server::Repositories as RepositoriesService;
use sateen_proto::mds::*;
use sateen_types::repository::{RepositoryChange, TaskId, TaskSpec};
use sateen_types::{FsName, FsResult, RepositoryId, RepositorySettings, SessionId};
use tonic::{Request, async_trait};

use super::{Answer, answer};
use crate::cluster::Cluster;
use crate::fs::FileSystem;
use crate::fs::repository::{Asked, Capacity, Loaded};

/// See the module.
pub struct Service {
    pub(super) cluster: Arc<Cluster>,
}

#[async_trait]
impl RepositoriesService for Service {
    async fn create_repository(&self, request: Request<CreateRepositoryRequest>) -> Answer<Repository> {
        let r = request.into_inner();
        let created = async {
            let settings: RepositorySettings = required(r.settings, "settings")?.try_into()?;
            self.named(&r.fs_name)?.create_repository(settings).await
        };
        answer(created.await.map(|link| (&link).into()))
    }

    async fn update_repository(&self, request: Request<UpdateRepositoryRequest>) -> Answer<Repository> {
        let r = request.into_inner();
        let updated = async {
            let chunk_mib = match r.imported_file_chunk_mib {
                0 => None,
                mib => Some(RepositorySettings::checked_chunk_mib(mib)?),
            };
            let (auto_import, auto_export) = (r.auto_import.map(Into::into), r.auto_export.map(Into::into));
            let update = RepositoryChange {
                endpoint: r.endpoint.map(|s| RepositorySettings::checked_endpoint(&s)).transpose()?,
                region: r.region.map(|s| RepositorySettings::checked_region(&s)).transpose()?,
                profile: r.profile.map(|s| RepositorySettings::checked_profile(&s)).transpose()?,
                auto_import,
                auto_export,
                chunk_mib,
                conflict: r.conflict.map(conflict_policy).transpose()?,
                sync_interval_s: match r.sync_interval_s {
                    0 => None,
                    seconds => Some(RepositorySettings::checked_sync_interval(seconds)?),
                },
                event_source: r.event_source.map(|source| source.parse()).transpose()?,
            };
            self.named(&r.fs_name)?.update_repository(RepositoryId(r.id), update).await
        };
        answer(updated.await.map(|link| (&link).into()))
    }

    async fn get_repository(&self, request: Request<GetRepositoryRequest>) -> Answer<Repository> {
        let r = request.into_inner();
        let found = async { self.named(&r.fs_name)?.repository(RepositoryId(r.id)).await };
        answer(found.await.map(|link| (&link).into()))
    }

    async fn list_repositories(&self, request: Request<ListRepositoriesRequest>) -> Answer<ListRepositoriesReply> {
        let r = request.into_inner();
        let found = async { self.named(&r.fs_name)?.repositories().await };
        let reply = |links: Vec<_>| ListRepositoriesReply { repositories: links.iter().map(Into::into).collect() };
        answer(found.await.map(reply))
    }

    async fn delete_repository(&self, request: Request<DeleteRepositoryRequest>) -> Answer<DeleteRepositoryReply> {
        let r = request.into_inner();
        let deleted = async { self.named(&r.fs_name)?.delete_repository(RepositoryId(r.id), r.force).await };
        answer(deleted.await.map(|()| DeleteRepositoryReply {}))
    }

    async fn start_import(&self, request: Request<StartImportRequest>) -> Answer<Repository> {
        let r = request.into_inner();
        let started = async { self.named(&r.fs_name)?.start_import(RepositoryId(r.id), r.sync).await };
        answer(started.await.map(|link| (&link).into()))
    }

    async fn load(&self, request: Request<LoadRequest>) -> Answer<LoadReply> {
        let r = request.into_inner();
        let loaded = async {
            let (session, fs) = self.fs(&r.session_id)?;
            let (fid, range) = (fid(r.fid, "fid")?, loaded_range(r.range)?);
            let asked = Asked { fid, range, sequential: r.sequential, reading: r.reading };
            let Loaded { remote, layout, filled } = fs.load(session, asked, hold(r.hold_ms)).await?;
            Ok(LoadReply {
                remote: remote.as_ref().map(Into::into),
                layout: Some((&layout).into()),
                filled: filled.iter().map(Into::into).collect(),
            })
        };
        answer(loaded.await)
    }

    async fn hsm_state(&self, request: Request<HsmStateRequest>) -> Answer<HsmStateReply> {
        let r = request.into_inner();
        let state = async {
            let (session, fs) = self.fs(&r.session_id)?;
            fs.hsm_state(session, fid(r.fid, "fid")?).await
        };
        answer(state.await.map(|state| (&state).into()))
    }

    async fn hsm_request(&self, request: Request<HsmRequestRequest>) -> Answer<HsmRequestReply> {
        let r = request.into_inner();
        let done = async {
            let (session, fs) = self.fs(&r.session_id)?;
            let operation = hsm_operation(&r)?;
            let (who, file) = (credential(r.credential)?, fid(r.fid, "fid")?);
            fs.hsm_request(session, who, file, operation).await
        };
        answer(done.await.map(|()| HsmRequestReply {}))
    }

    async fn take(&self, request: Request<TakeRequest>) -> Answer<TakeReply> {
        let r = request.into_inner();
        let taken = async {
            let (session, fs) = self.fs(&r.session_id)?;
            take_bounds(&r)?;
            let capacity = Capacity { max: r.max as usize, ahead: r.ahead_max as usize };
            fs.take(session, r.turn, capacity, &r.held, hold(r.hold_ms)).await
        };
        let reply =
            |(given, turn): (Vec<_>, u64)| TakeReply { assignments: given.iter().map(Into::into).collect(), turn };
        answer(taken.await.map(reply))
    }

    async fn known(&self, request: Request<KnownRequest>) -> Answer<KnownReply> {
        let r = request.into_inner();
        let known = async {
            let ((session, fs), number) = (self.fs(&r.session_id)?, r.number);
            fs.known(session, number, known_question(r)?).await
        };
        answer(known.await.map(|known| known_answer(&known)))
    }

    async fn import(&self, request: Request<ImportRequest>) -> Answer<ImportReply> {
        let r = request.into_inner();
        let imported = async {
            let ((session, fs), number) = (self.fs(&r.session_id)?, r.number);
            fs.import(session, number, import_page(r)?).await
        };
        answer(imported.await.map(|done| (&done).into()))
    }

    async fn start_export(&self, request: Request<StartExportRequest>) -> Answer<Repository> {
        let r = request.into_inner();
        let started = async {
            let path = if r.path.is_empty() { None } else { Some(r.path.parse()?) };
            self.named(&r.fs_name)?.start_export(RepositoryId(r.id), path).await
        };
        answer(started.await.map(|link| (&link).into()))
    }

    async fn list_conflicts(&self, request: Request<ListConflictsRequest>) -> Answer<ListConflictsReply> {
        let r = request.into_inner();
        let found = async {
            let (after, max) = conflicts_page(r.after, r.max)?;
            self.named(&r.fs_name)?.conflicts(RepositoryId(r.id), after, max).await
        };
        let reply = |(conflicts, more): (Vec<_>, bool)| ListConflictsReply {
            conflicts: conflicts.iter().map(Into::into).collect(),
            more,
        };
        answer(found.await.map(reply))
    }

    async fn resolve_conflict(&self, request: Request<ResolveConflictRequest>) -> Answer<ResolveConflictReply> {
        let r = request.into_inner();
        let resolved = async {
            let (key, how) = (conflict_key(r.key)?, resolution(r.how)?);
            self.named(&r.fs_name)?.resolve_conflict(RepositoryId(r.id), key, how).await
        };
        answer(resolved.await.map(|()| ResolveConflictReply {}))
    }

    async fn events(&self, request: Request<EventsRequest>) -> Answer<EventsReply> {
        let r = request.into_inner();
        let applied = async {
            let (session, fs) = self.fs(&r.session_id)?;
            fs.events(session, events_page(r)?).await
        };
        answer(applied.await.map(|done| (&done).into()))
    }

    async fn confirm(&self, request: Request<ConfirmRequest>) -> Answer<ConfirmReply> {
        let r = request.into_inner();
        let confirmed = async {
            let (session, fs) = self.fs(&r.session_id)?;
            fs.confirm(session, r.number).await
        };
        answer(confirmed.await.map(|changed_under_way| ConfirmReply { changed_under_way }))
    }

    async fn filled(&self, request: Request<FilledRequest>) -> Answer<FilledReply> {
        let r = request.into_inner();
        let told = || {
            let (session, fs) = self.fs(&r.session_id)?;
            fs.filled(session, r.number, ost_verifiers(r.verifiers)?)
        };
        answer(told().map(|()| FilledReply {}))
    }

    async fn finish(&self, request: Request<FinishRequest>) -> Answer<FinishReply> {
        let r = request.into_inner();
        let finished = async {
            let (session, fs) = self.fs(&r.session_id)?;
            fs.finish(session, r.number, required(r.outcome, "outcome")?.try_into()?).await
        };
        answer(finished.await.map(|()| FinishReply {}))
    }

    async fn read_report(&self, request: Request<ReadReportRequest>) -> Answer<ReadReportReply> {
        let r = request.into_inner();
        let read = async {
            let (session, fs) = self.fs(&r.session_id)?;
            fs.read_report(session, r.number, r.after).await
        };
        answer(read.await.map(|(lines, last, more)| ReadReportReply { lines, last, more }))
    }

    async fn start_task(&self, request: Request<StartTaskRequest>) -> Answer<Task> {
        let r = request.into_inner();
        let started = async {
            let spec: TaskSpec = required(r.spec, "spec")?.try_into()?;
            self.named(&r.fs_name)?.start_task(spec).await
        };
        answer(started.await.map(|task| (&task).into()))
    }

    async fn get_task(&self, request: Request<GetTaskRequest>) -> Answer<Task> {
        let r = request.into_inner();
        let found = async { self.named(&r.fs_name)?.task(TaskId(r.id)).await };
        answer(found.await.map(|task| (&task).into()))
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Answer<ListTasksReply> {
        let r = request.into_inner();
        let found = async { self.named(&r.fs_name)?.tasks().await };
        let reply = |tasks: Vec<_>| ListTasksReply { tasks: tasks.iter().map(Into::into).collect() };
        answer(found.await.map(reply))
    }

    async fn cancel_task(&self, request: Request<CancelTaskRequest>) -> Answer<Task> {
        let r = request.into_inner();
        let canceled = async { self.named(&r.fs_name)?.cancel_task(TaskId(r.id)).await };
        answer(canceled.await.map(|task| (&task).into()))
    }

    async fn get_auto_release(&self, request: Request<GetAutoReleaseRequest>) -> Answer<AutoRelease> {
        let r = request.into_inner();
        answer(self.named(&r.fs_name).map(|fs| fs.auto_release().into()))
    }

    async fn set_auto_release(&self, request: Request<SetAutoReleaseRequest>) -> Answer<AutoRelease> {
        let r = request.into_inner();
        let set = async {
            let marks = required(r.auto_release, "auto_release")?.try_into()?;
            self.named(&r.fs_name)?.set_auto_release(marks).await
        };
        answer(set.await.map(Into::into))
    }
}

impl Service {
    /// The session of a request and its file system.
    fn fs(&self, session: &[u8]) -> FsResult<(SessionId, Arc<FileSystem>)> {
        let session = session_id(session)?;
        Ok((session, self.cluster.by_session(session)?))
    }

    fn named(&self, name: &str) -> FsResult<Arc<FileSystem>> {
        let name: FsName = name.parse()?;
        self.cluster.by_name(&name)
    }
}
