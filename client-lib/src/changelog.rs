//! The changelog of a file system, for programs that follow it.

use std::time::Duration;

use sateen_proto::mds::changelog_client::ChangelogClient;
use sateen_proto::{convert, mds};
use sateen_types::changelog::{ChangeMask, ChangeRecord, ChangeUser, Changelog};
use sateen_types::limits::{CHANGELOG_PAGE_MAX, MESSAGE_BYTES_MAX};
use sateen_types::{FsName, FsResult};
use tonic::transport::Channel;

use crate::admin::Admin;

impl Admin {
    /// Registers a user of the changelog: from here on what `mask` has is recorded and kept for it.
    pub async fn register_changelog(&self, fs: &FsName, name: &str, mask: ChangeMask) -> FsResult<ChangeUser> {
        let request = mds::RegisterRequest { fs_name: fs.to_string(), name: name.to_owned(), mask: mask.0 };
        let mut client = self.changelog_client();
        self.call(async move { client.register(request).await }).await?.try_into()
    }

    /// Ends a user; `NotFound` if there is none of that number.
    pub async fn deregister_changelog(&self, fs: &FsName, id: u32) -> FsResult<()> {
        let request = mds::DeregisterRequest { fs_name: fs.to_string(), id };
        let mut client = self.changelog_client();
        self.call(async move { client.deregister(request).await }).await.map(drop)
    }

    /// Users, and how long the log is.
    pub async fn changelog(&self, fs: &FsName) -> FsResult<Changelog> {
        let request = mds::UsersRequest { fs_name: fs.to_string() };
        let mut client = self.changelog_client();
        self.call(async move { client.users(request).await }).await?.try_into()
    }

    /// Records behind `after`, in order, at most [`CHANGELOG_PAGE_MAX`]; none if there are none after waiting for `hold`, which
    /// is cut to half of what a call may take.
    pub async fn read_changelog(&self, fs: &FsName, after: u64, hold: Duration) -> FsResult<Vec<ChangeRecord>> {
        let hold_ms = hold.min(self.timeout() / 2).as_millis() as u32;
        let request = mds::ChangelogReadRequest { fs_name: fs.to_string(), after, max: CHANGELOG_PAGE_MAX, hold_ms };
        let mut client = self.changelog_client();
        let reply = self.call(async move { client.read(request).await }).await?;
        let records = reply.records.into_iter().map(ChangeRecord::try_from).collect::<FsResult<Vec<_>>>()?;
        let rise = std::iter::once(after).chain(records.iter().map(|r| r.index)).is_sorted_by(|a, b| a < b);
        if records.len() > CHANGELOG_PAGE_MAX as usize || !rise {
            let sent = records.len();
            return Err(convert::bad("records", format_args!("{sent} that do not follow {after} in order")));
        }
        Ok(records)
    }

    /// A user does not need records up to `end` (0: the newest) any more. `Invalid` if there is none of that number yet.
    pub async fn clear_changelog(&self, fs: &FsName, id: u32, end: u64) -> FsResult<()> {
        let request = mds::ClearRequest { fs_name: fs.to_string(), id, end };
        let mut client = self.changelog_client();
        self.call(async move { client.clear(request).await }).await.map(drop)
    }

    fn changelog_client(&self) -> ChangelogClient<Channel> {
        ChangelogClient::new(self.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}
