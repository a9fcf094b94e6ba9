//! What the MDS is told of open files, and what is known of them: counts, closes, what may be kept.

use std::collections::HashSet;
use std::sync::Arc;

use sateen_proto::mds as wire;
use sateen_types::{Fid, Grant, Recall, Using};

use super::{CLOSES_GATHER, Session};
use crate::opens::Keeps;

impl Session {
    /// A file is about to be opened. Gives the number of the open, as others do here.
    pub fn opening(&self, fid: Fid, writes: bool) -> u64 {
        self.opens.lock().opening(fid, writes)
    }

    /// A file was made here that nobody else knows, and is open.
    pub fn opening_alone(&self, fid: Fid, writes: bool) -> u64 {
        self.opens.lock().opening_alone(fid, writes)
    }

    /// The MDS is about to hear of a file that was made here; gives whether it is open.
    pub fn tell_open(&self, fid: Fid) -> bool {
        self.opens.lock().introduce(fid)
    }

    /// It has heard of `told`, and not of `untold`.
    pub fn told_open(self: &Arc<Self>, told: &[Fid], untold: &[Fid]) {
        let mut opens = self.opens.lock();
        told.iter().for_each(|fid| opens.introduced(*fid));
        untold.iter().for_each(|fid| opens.not_introduced(*fid));
        drop(opens);
        self.begin_telling();
    }

    /// An open has ended. The MDS is told soon, without anybody waiting for it.
    pub fn closed(self: &Arc<Self>, fid: Fid, number: u64) {
        self.opens.lock().closed(fid, number);
        self.begin_telling();
    }

    /// A file is about to be made and opened.
    pub fn creating(&self) -> u64 {
        self.opens.lock().creating()
    }

    /// That is over.
    pub fn created(&self) {
        self.opens.lock().created();
    }

    /// It is this one.
    pub fn was_created(&self, fid: Fid, number: u64, writes: bool) {
        self.opens.lock().was_created(fid, number, writes);
    }

    /// Where it stands what may be kept of a file that is open.
    pub fn keeps(&self, fid: Fid) -> Arc<Keeps> {
        self.opens.lock().keeps(fid)
    }

    /// What may be kept of a file that is open.
    pub fn granted(&self, fid: Fid, grant: Grant) {
        self.opens.lock().granted(fid, grant);
    }

    /// The MDS wants back what is more than the recall leaves.
    pub fn recalled(&self, fid: Fid, recall: Recall) {
        self.opens.lock().recalled(fid, recall);
    }

    /// What a file is used for.
    pub fn using(&self, fid: Fid) -> Using {
        self.opens.lock().using(fid)
    }

    /// Whether a file is open here.
    pub fn is_open(&self, fid: Fid) -> bool {
        self.opens.lock().is_open(fid)
    }

    /// Files of which nothing may be kept any more because the session had expired.
    pub fn take_lost(&self) -> HashSet<Fid> {
        std::mem::take(&mut self.lost.lock())
    }

    /// They are still to be looked after.
    pub fn put_back_lost(&self, files: HashSet<Fid>) {
        self.lost.lock().extend(files);
    }

    pub(super) fn begin_telling(self: &Arc<Self>) {
        if self.opens.lock().begin_telling() {
            let session = Arc::clone(self);
            self.spawn(async move { session.tell().await });
        }
    }

    /// Tells the MDS of closes until there are none. The end of the session is the last of them.
    async fn tell(&self) {
        tokio::select! {
            () = self.tell_all() => {}
            () = self.stop.cancelled() => self.opens.lock().give_up(),
        }
        self.closes_told.notify_waiters();
    }

    async fn tell_all(&self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(CLOSES_GATHER) => {}
                () = self.closes_wanted.notified() => {}
            }
            let Some(closes) = self.opens.lock().next() else { return };
            let (fids, opens): (Vec<_>, Vec<_>) =
                closes.opens.into_iter().map(|(fid, number)| (sateen_proto::common::Fid::from(fid), number)).unzip();
            let told = self.ask(|mut client, session_id| {
                let (fids, opens) = (fids.clone(), opens.clone());
                let request = wire::CloseRequest { session_id, number: closes.number, fids, opens };
                async move { client.close(request).await }
            });
            match told.await {
                Err(error) if error.code.is_retryable() => {
                    tracing::debug!(%error, "the MDS was not told of closes; with the next renewal");
                    return self.opens.lock().give_up();
                }
                outcome => {
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "the MDS does not want to know of closes");
                    }
                    self.opens.lock().told(closes.number);
                    self.closes_told.notify_waiters();
                }
            }
        }
    }

    /// Waits until the MDS knows of the closes so far, or cannot be told now.
    pub(crate) async fn tell_closes(&self) {
        let closes = self.opens.lock().closes();
        loop {
            let told = self.closes_told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if !self.opens.lock().is_telling(closes) {
                return;
            }
            self.closes_wanted.notify_one();
            told.await;
        }
    }
}
