//! What the MDS is asked about files of data repositories, and what workers tell it.
//!
//! An assignment belongs to the session in which it was given. Whoever reports about it in another session would report about
//! something that is somebody else's by now, so those requests go out in that session or not at all.

use std::future::Future;
use std::time::Duration;

use sateen_proto::mds::repositories_client::RepositoriesClient;
use sateen_proto::{convert, mds as wire};
use sateen_types::limits::REPOSITORY_HOLD_MS_MAX;
use sateen_types::repository::{Filled, Remote};
use sateen_types::{Extent, Fid, FsCode, FsError, FsResult, Layout};
use tonic::transport::Channel;

use super::Session;
use crate::retry::Backoff;
use crate::transport;

/// Loads under way at a time: they stay at the MDS for long, which takes a bounded number of requests of one client, and renewals of
/// the session must not wait for them.
pub(super) const LOADS_MAX: usize = 192;

/// What is loaded of a file, as the MDS says.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// `None`: everything.
    pub remote: Option<Remote>,
    pub layout: Layout,
    /// What `remote` lacks and can be read all the same.
    pub filled: Vec<Filled>,
}

impl Session {
    /// How long a question may stay at the MDS that waits for something to happen.
    pub fn repository_hold(&self, wanted: Duration) -> Duration {
        wanted.min(self.options.request_timeout / 2).min(Duration::from_millis(REPOSITORY_HOLD_MS_MAX.into()))
    }

    /// Waits until a range is loaded, or for `hold`. `sequential`: what follows is wanted next; `reading`: what is stored and not
    /// yet durable is enough.
    pub async fn load(
        &self,
        fid: Fid,
        range: Extent,
        sequential: bool,
        reading: bool,
        hold: Duration,
    ) -> FsResult<Loaded> {
        let _place = self.loads.acquire().await.map_err(|_| FsError::new(FsCode::Internal, "no more loads"))?;
        let hold_ms = self.repository_hold(hold).as_millis() as u32;
        let asked = self.ask_repositories(|mut client, session_id| {
            let (fid, range) = (Some(fid.into()), Some(convert::loaded_range_to_wire(range)));
            let request = wire::LoadRequest { session_id, fid, range, sequential, hold_ms, reading };
            async move { client.load(request).await }
        });
        let (reply, _) = asked.await?;
        let layout = convert::required(reply.layout, "layout")?.try_into()?;
        Ok(Loaded { remote: convert::remote(reply.remote)?, layout, filled: convert::filled(reply.filled)? })
    }

    /// [`Session::ask`] about repositories; with the writer of the session that was answered.
    pub async fn ask_repositories<T, F, Fut>(&self, call: F) -> FsResult<(T, u64)>
    where
        F: Fn(RepositoriesClient<Channel>, Vec<u8>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let answered = self.ask_whole(|route, session_id| call(route.repositories(), session_id)).await;
        answered.map(|(answer, incarnation)| (answer, incarnation.writer))
    }

    /// [`Session::ask_repositories`] in the session of `writer` alone: `Stale` if that is over.
    pub async fn ask_repositories_as<T, F, Fut>(&self, writer: u64, call: F) -> FsResult<T>
    where
        F: Fn(RepositoriesClient<Channel>, Vec<u8>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut backoff = Backoff::new(self.options.retry_for, &self.stop);
        loop {
            let incarnation = self.incarnation();
            if incarnation.writer != writer {
                return Err(ended());
            }
            let route = self.mds.route();
            let attempt = call(route.repositories(), incarnation.id.0.to_vec());
            match transport::within(self.mds.request_timeout, &route.peer, attempt).await {
                Err(e) if e.code.is_retryable() => {
                    match e.code {
                        FsCode::Awaiting => backoff.wait_longer(incarnation.lease),
                        _ => self.mds.failed(&route),
                    }
                    if !backoff.pause().await {
                        return Err(e);
                    }
                }
                other => return other,
            }
        }
    }
}

/// What was given in a session that is over is somebody else's.
pub(crate) fn ended() -> FsError {
    FsError::new(FsCode::Stale, "the session in which the work was given has ended; it goes to another worker")
}
