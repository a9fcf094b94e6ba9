//! Listing directories: one page after the other, and in a walk many directories ahead ([`crate::ahead`]).

use std::time::{Duration, Instant};

use sateen_proto::{convert, mds as wire};
use sateen_types::limits::{READ_DIRS_MAX, READDIR_ENTRIES_MAX};
use sateen_types::op::DirEntry;
use sateen_types::{Credential, Fid, FsResult};

use crate::ahead::{Batch, Listing};
use crate::client::Client;

/// Entries of a directory that are fetched ahead; more are asked for when it is listed.
const AHEAD_ENTRIES: u32 = 512;

/// A part of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirPage {
    /// In the order of their cookies.
    pub entries: Vec<DirEntry>,
    /// Nothing follows.
    pub end: bool,
    /// The directory the directory is in; the root is in itself.
    pub parent: Fid,
    /// How long ago it was asked for: before it was needed, where [`crate::Options::attributes_ahead`] allows.
    pub age: Duration,
}

impl Client {
    /// One page of a directory: entries with cookies above `after`, at most `max`, with attributes if they are wanted and known.
    pub async fn read_dir(
        &self,
        cred: &Credential,
        fid: Fid,
        after: u64,
        max: u32,
        with_attr: bool,
    ) -> FsResult<DirPage> {
        let session = &self.inner.session;
        let from_the_start = after == 0 && with_attr;
        if from_the_start && let Some(page) = self.find_listing(cred, fid) {
            return Ok(page);
        }
        if with_attr && session.names.known(|tree| tree.has_held_in(fid).then_some(())).is_some() {
            session.names.told_all(session).await?;
        }
        self.told(&[fid]).await?;
        let (mut entries, end, parent) = self.list(cred, fid, after, max, with_attr).await?;
        for entry in &mut entries {
            entry.attr = entry.attr.take().map(|attr| self.merge(self.newest(attr)));
        }
        if from_the_start {
            self.list_ahead(session.ahead.listed(cred, fid, &entries));
        }
        Ok(DirPage { entries, end, parent, age: Duration::ZERO })
    }

    /// What was fetched ahead of a directory. Entries that are known better here come without attributes.
    fn find_listing(&self, cred: &Credential, dir: Fid) -> Option<DirPage> {
        let session = &self.inner.session;
        let (Listing { mut entries, end, parent, .. }, age) = session.ahead.find_listing(cred, dir)?;
        self.list_ahead(session.ahead.listed(cred, dir, &entries));
        let names = &session.names;
        if names.holds(dir) || names.is_pending(dir) {
            return None;
        }
        for entry in &mut entries {
            let fid = entry.fid;
            let is_known = || self.inner.table.get(fid).is_some() || names.known(|tree| tree.attr(fid)).is_some();
            entry.attr = entry.attr.take().filter(|_| !is_known());
            if let Some(attr) = &mut entry.attr {
                attr.atime = self.inner.atimes.newest(fid, attr.atime);
                // Nothing older is answered afterwards.
                session.ahead.told(fid);
            }
        }
        Some(DirPage { entries, end, parent, age })
    }

    /// Lists directories in the background, and those that a walk comes to then.
    fn list_ahead(&self, batch: Option<Batch>) {
        let Some(first) = batch else { return };
        let client = self.clone();
        let work = async move {
            let mut next = Some(first);
            while let Some(batch) = next {
                let listings = tokio::select! {
                    listed = client.list_many(&batch) => listed,
                    () = client.inner.stop.cancelled() => return,
                };
                let listings =
                    listings.inspect_err(|error| tracing::debug!(%error, "directories were not listed ahead"));
                next = client.inner.session.ahead.fetched_listings(&batch, listings.unwrap_or_default());
            }
        };
        self.inner.tasks.spawn_on(work, &self.inner.runtime);
    }

    /// First pages of several directories, in their order; those that cannot be had without disturbing others are missing.
    async fn list_many(&self, batch: &Batch) -> FsResult<Vec<Option<Listing>>> {
        let session = &self.inner.session;
        let dirs = &batch.dirs[..batch.dirs.len().min(READ_DIRS_MAX)];
        let asked = Instant::now();
        self.told(dirs).await?;
        let reply = session.ask(|mut client, session_id| {
            let fids = dirs.iter().map(|dir| (*dir).into()).collect();
            let (credential, max) = (Some((&*batch.cred).into()), AHEAD_ENTRIES);
            async move { client.read_dirs(wire::ReadDirsRequest { session_id, credential, fids, max }).await }
        });
        let reply = reply.await?;
        let all: usize = reply.listings.iter().flat_map(|l| &l.page).map(|page| page.entries.len()).sum();
        if reply.listings.len() != dirs.len() || all > READDIR_ENTRIES_MAX as usize {
            let what = format_args!("{} with {all} entries, {} asked for", reply.listings.len(), dirs.len());
            return Err(convert::bad("listings", what));
        }
        let listing = |(listing, dir): (wire::DirListing, &Fid)| {
            // The MDS does not know all of what is held here.
            let Some(page) = listing.page.filter(|_| !session.names.holds(*dir)) else { return Ok(None) };
            let entries = page.entries.into_iter().map(DirEntry::try_from).collect::<FsResult<Vec<_>>>()?;
            Ok(Some(Listing { entries, end: page.end, parent: convert::fid(page.parent, "parent")?, asked }))
        };
        reply.listings.into_iter().zip(dirs).map(listing).collect()
    }
}
