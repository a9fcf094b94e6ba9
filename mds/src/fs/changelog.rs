//! The changelog, for those who follow a file system. The rules are in [`crate::namespace::changelog`].

use std::time::{Duration, Instant};

use sateen_types::changelog::{ChangeMask, ChangeRecord, ChangeUser, Changelog};
use sateen_types::{FsCode, FsError, FsResult};

use super::FileSystem;
use crate::command::{Command, Outcome};
use crate::namespace::changelog::{self, Answer, Change};

/// Between looks for new records while somebody waits for them.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

impl FileSystem {
    async fn follow(&self, change: Change) -> FsResult<Answer> {
        match self.submit(Command::Changelog(change)).await? {
            Outcome::Changelog(answer) => Ok(answer),
            _ => Err(FsError::new(FsCode::Internal, "a change of the changelog was answered with something else")),
        }
    }

    /// A new user of the changelog.
    pub async fn register_follower(&self, name: String, mask: ChangeMask) -> FsResult<ChangeUser> {
        let Answer::User(user) = self.follow(Change::Register { name, mask }).await? else {
            return Err(FsError::new(FsCode::Internal, "no user was made"));
        };
        tracing::info!(fs = %self.info.name, user = user.label(), mask = %user.mask, "a user of the changelog registered");
        self.purge_changelog().await?;
        Ok(user)
    }

    /// A user goes.
    pub async fn deregister_follower(&self, id: u32) -> FsResult<()> {
        self.follow(Change::Deregister { id }).await?;
        tracing::info!(fs = %self.info.name, user = id, "a user of the changelog was deregistered");
        self.purge_changelog().await
    }

    /// A user does not need records up to `end` (0: the newest) any more.
    pub async fn clear_changelog(&self, id: u32, end: u64) -> FsResult<()> {
        self.follow(Change::Clear { id, end }).await?;
        self.purge_changelog().await
    }

    async fn purge_changelog(&self) -> FsResult<()> {
        while self.follow(Change::Purge).await? == Answer::More(true) {}
        Ok(())
    }

    /// Users, and how long the log is.
    pub async fn changelog(&self) -> FsResult<Changelog> {
        self.ask(changelog::show).await
    }

    /// Records that are kept; 0 if that is not in memory.
    pub fn changelog_length(&self) -> u64 {
        match self.ask_memory(&changelog::length) {
            Some(Ok(length)) => length,
            _ => 0,
        }
    }

    /// Records behind `after`, in order; waits for one at most `hold`.
    pub async fn read_changelog(&self, after: u64, max: usize, hold: Duration) -> FsResult<Vec<ChangeRecord>> {
        let until = Instant::now() + hold;
        loop {
            let records = self.read(move |tx| changelog::read(tx, after, max)).await?;
            let left = until.saturating_duration_since(Instant::now());
            if !records.is_empty() || left.is_zero() {
                return Ok(records);
            }
            tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
        }
    }
}
