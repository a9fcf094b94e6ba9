//! Commits: what was stored becomes durable. One commit of an OST serves everybody who waited for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sateen_proto::{convert, oss};
use sateen_types::{FsId, FsResult, OstIndex, Verifier};

use crate::osts::Osts;

/// A commit that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    /// Every write answered up to this count had been answered before the commit was sent.
    pub covers: u64,
    /// Writes with the same verifier are durable.
    pub verifier: Verifier,
}

/// Counts answers and shares commits. See the module.
#[derive(Debug, Default)]
pub(crate) struct Committer {
    answers: AtomicU64,
    osts: Mutex<HashMap<OstIndex, Arc<tokio::sync::Mutex<Option<Committed>>>>>,
}

impl Committer {
    /// The number of a write that was just answered.
    pub fn count_answer(&self) -> u64 {
        self.answers.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Commits one OST, unless a commit that covers the answers up to `needed` has been made already.
    pub async fn commit(&self, osts: &Osts, fs: FsId, ost: OstIndex, needed: u64) -> FsResult<Committed> {
        let last = Arc::clone(self.osts.lock().entry(ost).or_default());
        // Whoever waits here finds that the commit before served them, or sends one for all who came meanwhile.
        let mut last = last.lock().await;
        if let Some(committed) = *last
            && committed.covers >= needed
        {
            return Ok(committed);
        }
        let covers = self.answers.load(Ordering::Acquire);
        let request = oss::CommitRequest { ost: u32::from(ost.0), fs_id: fs.0 };
        let reply = osts.call(ost, |mut client| async move { client.commit(request).await }).await?;
        let committed = Committed { covers, verifier: convert::verifier(&reply.verifier)? };
        *last = Some(committed);
        Ok(committed)
    }
}
