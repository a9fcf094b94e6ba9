//! Data repositories: links as an administrator sees them, the state of a file, and the work that workers do.
//!
//! A worker takes assignments in one session of its client, and stores, reports and imports in that one alone: a [`Shift`]
//! says which. When [`Client::take`] answers with another shift, everything that was taken before is somebody else's.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sateen_proto::mds as wire;
use sateen_proto::mds::repositories_client::RepositoriesClient;
use sateen_proto::{convert, mds};
use sateen_types::limits::{CONFLICTS_PAGE_MAX, MESSAGE_BYTES_MAX, REPOSITORIES_MAX, TAKE_MAX};
use sateen_types::repository::{
    Assignment, Conflict, ConflictPolicy, EventsDone, EventsPage, HsmOperation, HsmState, ImportDone, ImportPage,
    ImportedObject, LinkPath, Outcome, Repository, RepositoryChange, RepositoryId, RepositorySettings,
};
use sateen_types::{Credential, Fid, FsCode, FsName, FsResult, OstIndex, Verifier};
use tonic::transport::Channel;

use crate::admin::Admin;
use crate::client::Client;
use crate::tend;

/// How often a release is tried again that finds the file open while it is not open here: its close may be on its way.
const RELEASE_TRIES: u32 = 6;
/// Pause before that.
const RELEASE_PAUSE: Duration = Duration::from_millis(50);

impl Admin {
    /// Links a directory to a prefix. `Exists` if it overlaps another link.
    pub async fn create_repository(&self, fs: &FsName, settings: &RepositorySettings) -> FsResult<Repository> {
        let request = mds::CreateRepositoryRequest { fs_name: fs.to_string(), settings: Some(settings.into()) };
        let mut client = self.repositories();
        self.call(async move { client.create_repository(request).await }).await?.try_into()
    }

    /// Changes a link, and makes one that was misconfigured be looked at again.
    pub async fn update_repository(
        &self,
        fs: &FsName,
        id: RepositoryId,
        change: RepositoryChange,
    ) -> FsResult<Repository> {
        let request = mds::UpdateRepositoryRequest {
            fs_name: fs.to_string(),
            id: id.0,
            endpoint: change.endpoint,
            region: change.region,
            profile: change.profile,
            auto_import: change.auto_import.map(Into::into),
            auto_export: change.auto_export.map(Into::into),
            imported_file_chunk_mib: change.chunk_mib.unwrap_or(0),
            conflict: change.conflict.map(|policy| wire::ConflictPolicy::from(policy).into()),
            sync_interval_s: change.sync_interval_s.unwrap_or(0),
            event_source: change.event_source.map(|source| source.to_string()),
        };
        let mut client = self.repositories();
        self.call(async move { client.update_repository(request).await }).await?.try_into()
    }

    /// One link; `NotFound` if there is none of that number.
    pub async fn get_repository(&self, fs: &FsName, id: RepositoryId) -> FsResult<Repository> {
        let request = mds::GetRepositoryRequest { fs_name: fs.to_string(), id: id.0 };
        let mut client = self.repositories();
        self.call(async move { client.get_repository(request).await }).await?.try_into()
    }

    /// Every link of a file system, in the order of their numbers.
    pub async fn list_repositories(&self, fs: &FsName) -> FsResult<Vec<Repository>> {
        let request = mds::ListRepositoriesRequest { fs_name: fs.to_string() };
        let mut client = self.repositories();
        let reply = self.call(async move { client.list_repositories(request).await }).await?;
        if reply.repositories.len() > REPOSITORIES_MAX {
            let sent = reply.repositories.len();
            return Err(convert::bad("repositories", format_args!("{sent}, at most {REPOSITORIES_MAX}")));
        }
        reply.repositories.into_iter().map(TryInto::try_into).collect()
    }

    /// Ends a link. `Busy` if files are not loaded in full, unless forced: they give `Io` then where they are not.
    pub async fn delete_repository(&self, fs: &FsName, id: RepositoryId, force: bool) -> FsResult<()> {
        let request = mds::DeleteRepositoryRequest { fs_name: fs.to_string(), id: id.0, force };
        let mut client = self.repositories();
        self.call(async move { client.delete_repository(request).await }).await.map(drop)
    }

    /// Imports everything under the prefix again; does nothing while an import runs. `sync`: names go whose objects are gone, if the
    /// files were not changed here.
    pub async fn start_import(&self, fs: &FsName, id: RepositoryId, sync: bool) -> FsResult<Repository> {
        let request = mds::StartImportRequest { fs_name: fs.to_string(), id: id.0, sync };
        let mut client = self.repositories();
        self.call(async move { client.start_import(request).await }).await?.try_into()
    }

    /// Exports what the bucket does not have as it is below a directory of the link; `None`: the link's own. `Invalid` if it is
    /// not below that.
    pub async fn start_export(&self, fs: &FsName, id: RepositoryId, path: Option<&LinkPath>) -> FsResult<Repository> {
        let path = path.map(LinkPath::to_string).unwrap_or_default();
        let request = mds::StartExportRequest { fs_name: fs.to_string(), id: id.0, path };
        let mut client = self.repositories();
        self.call(async move { client.start_export(request).await }).await?.try_into()
    }

    /// Conflicts behind the key `after` (empty: from the start), in the order of keys, and whether there are more.
    pub async fn list_conflicts(&self, fs: &FsName, id: RepositoryId, after: &[u8]) -> FsResult<(Vec<Conflict>, bool)> {
        let request = mds::ListConflictsRequest {
            fs_name: fs.to_string(),
            id: id.0,
            after: after.to_vec(),
            max: CONFLICTS_PAGE_MAX,
        };
        let mut client = self.repositories();
        let reply = self.call(async move { client.list_conflicts(request).await }).await?;
        if reply.conflicts.len() > CONFLICTS_PAGE_MAX as usize || (reply.more && reply.conflicts.is_empty()) {
            let sent = reply.conflicts.len();
            return Err(convert::bad("conflicts", format_args!("{sent}, at most {CONFLICTS_PAGE_MAX}")));
        }
        let conflicts = reply.conflicts.into_iter().map(Conflict::try_from).collect::<FsResult<_>>()?;
        Ok((conflicts, reply.more))
    }

    /// Ends a conflict. `NotFound` if there is none under the key, `Busy` if the file is open and its data would go.
    pub async fn resolve_conflict(
        &self,
        fs: &FsName,
        id: RepositoryId,
        key: &[u8],
        how: ConflictPolicy,
    ) -> FsResult<()> {
        let (fs_name, key, how) = (fs.to_string(), key.to_vec(), wire::ConflictPolicy::from(how).into());
        let request = mds::ResolveConflictRequest { fs_name, id: id.0, key, how };
        let mut client = self.repositories();
        self.call(async move { client.resolve_conflict(request).await }).await.map(drop)
    }

    fn repositories(&self) -> RepositoriesClient<Channel> {
        RepositoriesClient::new(self.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// One session of a worker: what was taken in it counts in it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shift(pub(crate) u64);

impl Client {
    /// What Lustre's `lfs hsm_state` and `hsm_action` tell. `NoData` for a file that never was under a link.
    pub async fn hsm_state(&self, fid: Fid) -> FsResult<HsmState> {
        self.told(&[fid]).await?;
        let asked = self.inner.session.ask_repositories(|mut client, session_id| {
            let fid = Some(fid.into());
            async move { client.hsm_state(wire::HsmStateRequest { session_id, fid }).await }
        });
        asked.await?.0.try_into()
    }

    /// Restore: loads the whole file in the background, and returns at once. Release: gives up what the OSTs have of it;
    /// `Busy` while anybody has it open, `Invalid` if its repository does not have all of it. Flags: `Invalid` where they would say
    /// something that is not so. The others return at once.
    pub async fn hsm_request(&self, cred: &Credential, fid: Fid, operation: HsmOperation) -> FsResult<()> {
        self.told(&[fid]).await?;
        let mut tries = 1;
        loop {
            if operation == HsmOperation::Release {
                self.put_away(fid).await?;
            }
            let asked = self.inner.session.ask_repositories(|mut client, session_id| {
                let request = convert::hsm_request_to_wire(session_id, cred, fid, operation);
                async move { client.hsm_request(request).await }
            });
            match asked.await {
                Err(e) if e.code == FsCode::Busy && operation == HsmOperation::Release && tries < RELEASE_TRIES => {
                    tries += 1;
                    tokio::time::sleep(RELEASE_PAUSE).await;
                }
                done => return done.map(drop),
            }
        }
    }

    /// What was written here to a file is durable and reported, and the MDS knows of its closes.
    async fn put_away(&self, fid: Fid) -> FsResult<()> {
        if let Some(inode) = self.inner.table.get(fid) {
            tend::everything(&self.inner, &inode).await?;
            self.inner.table.unpin_if_clean(&inode);
        }
        self.inner.session.tell_closes().await;
        Ok(())
    }

    /// Waits for work, `hold` at most (and not longer than half of [`crate::Options::request_timeout`]); `max` is 1 to 64, and
    /// `ahead_max` of them may be ranges that nobody waits for yet. `held` are the numbers of everything that the worker has. With
    /// another [`Shift`] than last time nothing of that is its own any more.
    pub async fn take(
        &self,
        max: u32,
        ahead_max: u32,
        hold: Duration,
        held: &[u64],
    ) -> FsResult<(Shift, Vec<Assignment>)> {
        let session = &self.inner.session;
        let (max, hold_ms) = (max.clamp(1, TAKE_MAX), session.repository_hold(hold).as_millis() as u32);
        let asked = session.ask_repositories(|mut client, session_id| {
            let ahead_max = ahead_max.min(max);
            let turn = self.inner.turn.load(Ordering::Relaxed);
            let request = wire::TakeRequest { session_id, max, hold_ms, held: held.to_vec(), ahead_max, turn };
            async move { client.take(request).await }
        });
        let (reply, writer) = asked.await?;
        self.inner.turn.store(reply.turn, Ordering::Relaxed);
        if reply.assignments.len() > max as usize {
            let sent = reply.assignments.len();
            return Err(convert::bad("assignments", format_args!("{sent} were sent, {max} asked for")));
        }
        let assignments = reply.assignments.into_iter().map(Assignment::try_from).collect::<FsResult<_>>()?;
        Ok((Shift(writer), assignments))
    }

    /// Which of these objects, as a listing tells of them, the import `number` need not look at. `Stale` if that is not this worker's
    /// any more.
    pub async fn known(&self, shift: Shift, number: u64, objects: &[ImportedObject]) -> FsResult<Vec<bool>> {
        let asked = self.inner.session.ask_repositories_as(shift.0, |mut client, session_id| {
            let request = convert::known_to_wire(session_id, number, objects);
            async move { client.known(request).await }
        });
        convert::known_of(&asked.await?, objects.len())
    }

    /// Reports a page of the import `number`. `Stale` if that is not this worker's any more.
    pub async fn import(&self, shift: Shift, number: u64, page: &ImportPage) -> FsResult<ImportDone> {
        let asked = self.inner.session.ask_repositories_as(shift.0, |mut client, session_id| {
            let request = convert::import_to_wire(session_id, number, page);
            async move { client.import(request).await }
        });
        asked.await?.try_into()
    }

    /// Tells what is under keys of a bucket. `Stale` if the Watch is not this worker's any more.
    pub async fn events(&self, shift: Shift, page: &EventsPage) -> FsResult<EventsDone> {
        let asked = self.inner.session.ask_repositories_as(shift.0, |mut client, session_id| {
            let request = convert::events_to_wire(session_id, page);
            async move { client.events(request).await }
        });
        asked.await?.try_into()
    }

    /// The last question before an object is put in place: whether its file was opened for writing or changed since the
    /// assignment `number` was given. `Stale` if that is not this worker's any more.
    pub async fn changed_under_way(&self, shift: Shift, number: u64) -> FsResult<bool> {
        let asked = self.inner.session.ask_repositories_as(shift.0, |mut client, session_id| {
            let request = wire::ConfirmRequest { session_id, number };
            async move { client.confirm(request).await }
        });
        Ok(asked.await?.changed_under_way)
    }

    /// The range of the assignment `number` is stored: whoever waits to read it need not wait until it is durable. `Stale` if it
    /// is not this worker's any more.
    pub async fn filled(&self, shift: Shift, number: u64, verifiers: &[(OstIndex, Verifier)]) -> FsResult<()> {
        let asked = self.inner.session.ask_repositories_as(shift.0, |mut client, session_id| {
            let verifiers = convert::ost_verifiers_to_wire(verifiers);
            async move { client.filled(wire::FilledRequest { session_id, number, verifiers }).await }
        });
        asked.await.map(drop)
    }

    /// Reports that the assignment `number` is done, or has failed. `Stale` if it is not this worker's any more.
    pub async fn finish(&self, shift: Shift, number: u64, outcome: &Outcome) -> FsResult<()> {
        // The range may be somebody else's afterwards: nothing of it may be on its way any more.
        self.inner.filling.ended(|write| write.number == number).await;
        let asked = self.inner.session.ask_repositories_as(shift.0, |mut client, session_id| {
            let request = wire::FinishRequest { session_id, number, outcome: Some(outcome.into()) };
            async move { client.finish(request).await }
        });
        asked.await.map(drop)
    }
}
