//! Sessions of clients: they begin, say that they live and what they have open, and end.

use std::collections::HashMap;
use std::time::Instant;

use sateen_types::{Attr, Fid, FsResult, SessionId, Using};

use super::capabilities::HOLD_MAX;
use super::{FileSystem, Stated};
use crate::clients::Ending;
use crate::command::Command;
use crate::namespace;

impl FileSystem {
    /// Begins a session; gives the root's attributes.
    pub async fn open_session(&self, session: SessionId, client: String, writer: u64) -> FsResult<Attr> {
        self.shared.clients.lock().check_room(writer)?;
        self.submit(Command::OpenSession { session, client: client.clone(), writer }).await?;
        self.shared.clients.lock().add(session, client, writer, Instant::now());
        self.ask(|tx| namespace::get_attr(tx, Fid::ROOT)).await
    }

    /// The session lives; `Stale` if not.
    pub fn touch(&self, session: SessionId) -> FsResult<()> {
        self.shared.clients.lock().touch(session, Instant::now())
    }

    /// Renews a session, with what the client has open and keeps if it says so (but for closes up to `number`); true if it
    /// must say so.
    pub async fn renew(&self, session: SessionId, open_files: Option<&[Stated]>, number: u64) -> FsResult<bool> {
        let (wants_restate, opened) = self.take_statement(session, open_files, number)?;
        self.settle_opened().await?;
        // Others give up what they may not keep beside it; only then the client goes on.
        self.make_way(session, opened, Instant::now() + HOLD_MAX).await?;
        Ok(wants_restate)
    }

    /// The part of [`FileSystem::renew`] that does not wait. Gives what is open now and was not before.
    pub(super) fn take_statement(
        &self,
        session: SessionId,
        open_files: Option<&[Stated]>,
        number: u64,
    ) -> FsResult<(bool, HashMap<Fid, Using>)> {
        let now = Instant::now();
        let mut opened = HashMap::new();
        let mut clients = self.shared.clients.lock();
        clients.touch(session, now)?;
        if let Some(files) = open_files {
            let recovers = clients.wants_restate(session);
            let opens: Vec<(Fid, u64)> = files.iter().map(|one| (one.fid, one.number)).collect();
            let mut before = clients.files_of(session);
            clients.restate(session, &opens, number)?;
            if recovers {
                self.shared.capabilities.restate(session, files);
            } else {
                // A new session of a client whose old one has expired, with all that it had: it keeps nothing.
                self.shared.capabilities.reopen(session, files);
                let written = files.iter().filter(|one| one.using == Using::Writing);
                written.for_each(|one| self.shared.repositories.opened_for_writing(one.fid));
                // It may have said so before, and have closed some since.
                files.iter().for_each(|one| {
                    before.remove(&one.fid);
                });
                self.shared.capabilities.closed(session, before.into_iter());
                for one in files {
                    let most = opened.entry(one.fid).or_insert(one.using);
                    *most = (*most).max(one.using);
                }
            }
            self.shared.locks.restated();
        }
        Ok((clients.wants_restate(session), opened))
    }

    /// Ends a session. Its open files count as closed and its locks go at once; files without a name go with the next
    /// sweep.
    pub async fn close_session(&self, session: SessionId) -> FsResult<()> {
        // Before anybody else may close what it had open.
        let mut written = self.abandon_files_of(session).await?;
        {
            let mut clients = self.shared.clients.lock();
            clients.remove(session);
            written.extend(self.shared.capabilities.end_session(session));
        }
        self.shared.locks.end_session(session);
        self.shared.repositories.end_session(session, Instant::now());
        self.unmark_closed(written).await?;
        self.submit(Command::CloseSession { session }).await?;
        self.settle_opened().await
    }

    /// Clients are answered from now on.
    pub fn begin(&self, now: Instant) {
        self.shared.clients.lock().begin(now);
    }

    /// Sessions that fell silent: nothing of them is answered any more. They end with [`FileSystem::close_session`].
    pub fn begin_ending(&self) -> Vec<Ending> {
        let (mut clients, now) = (self.shared.clients.lock(), Instant::now());
        if clients.is_past_recovery(now) {
            // A worker of before that lives and never said what it has keeps everything from being loaded.
            self.shared.repositories.unsettled().into_iter().for_each(|session| {
                clients.begin_ending_of(session);
            });
        }
        let ending = clients.begin_ending(now);
        self.shared.capabilities.ending(&ending);
        ending
    }

    /// Likewise for a session that its client has given up.
    pub fn begin_ending_of(&self, session: SessionId) -> Option<Ending> {
        let mut clients = self.shared.clients.lock();
        let ending = clients.begin_ending_of(session)?;
        self.shared.capabilities.ending(std::slice::from_ref(&ending));
        Some(ending)
    }

    /// Likewise for sessions of writers that have ended.
    pub fn end_writers(&self, has_ended: impl Fn(u64) -> bool) {
        self.shared.clients.lock().end_writers(has_ended);
    }

    /// Sessions now.
    pub fn session_count(&self) -> usize {
        self.shared.clients.lock().len()
    }

    /// Names of the clients.
    pub fn client_names(&self) -> Vec<String> {
        self.shared.clients.lock().names()
    }
}
