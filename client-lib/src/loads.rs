//! Bytes that are only in the repository are loaded before anybody reads or writes there: the way to all file data leads
//! through [`loaded`].
//!
//! Who needs a range asks the MDS (Load) and waits; workers fetch it. Whoever needs what somebody here waits for already waits
//! with him; but nobody waits for more than he needs. The question is kept up by those who wait for it: when all have gone away, it
//! is asked no more. An error is told to all who waited, and forgotten: the next one asks again.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, Shared, WeakShared, try_join_all};
use parking_lot::Mutex;
use sateen_types::{Extent, FsCode, FsError, FsResult, Layout};
use tokio::time::Instant;

use crate::inner::Inner;
use crate::inode::{Inode, Purpose};
use crate::retry::Backoff;
use crate::session::Loaded;

/// Longest a question stays at the MDS.
const HOLD: Duration = Duration::from_secs(10);
/// An answer that comes sooner and brings too little is not asked for again at once.
const HELD_MIN: Duration = Duration::from_secs(1);
/// Most bytes asked for at a time.
const LOAD_BYTES_MAX: u64 = 64 << 20;

type Outcome = BoxFuture<'static, FsResult<()>>;
type Load = Shared<Outcome>;

/// What of a file is being loaded, for somebody here.
#[derive(Default)]
pub(crate) struct Loads(Mutex<Vec<(Extent, Purpose, WeakShared<Outcome>)>>);

impl std::fmt::Debug for Loads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.lock().iter().map(|(range, ..)| range)).finish()
    }
}

/// What bytes are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct How {
    pub purpose: Purpose,
    /// What follows is wanted next.
    pub sequential: bool,
}

impl How {
    /// To change them.
    pub const CHANGE: How = How { purpose: Purpose::Change, sequential: false };

    /// To read them; in a row or not.
    pub fn read(sequential: bool) -> How {
        How { purpose: Purpose::Read, sequential }
    }
}

/// Waits until nothing of `[offset, offset + len)` is only in the repository.
pub(crate) async fn loaded(inner: &Arc<Inner>, inode: &Arc<Inode>, offset: u64, len: u64, how: How) -> FsResult<()> {
    loop {
        let missing = inode.state().missing(offset, len, how.purpose);
        let Some(mut missing) = missing else { return Ok(()) };
        let all = missing.end - missing.start;
        missing.end = missing.start + all.min(LOAD_BYTES_MAX);
        let how = How { sequential: how.sequential || all > LOAD_BYTES_MAX, ..how };
        try_join_all(inode.loads.join(inner, inode, missing, how)).await?;
    }
}

impl Loads {
    /// Everything to wait for until `range` is loaded: what is under way within it, and new questions for the rest.
    fn join(&self, inner: &Arc<Inner>, inode: &Arc<Inode>, range: Extent, how: How) -> Vec<Load> {
        let mut under_way = self.0.lock();
        let mut joined = Vec::new();
        let mut rest = vec![range];
        under_way.retain(|(other, purpose, load)| {
            // One that has an outcome is over, even if not all who waited have seen it.
            let Some(load) = load.upgrade().filter(|load| load.peek().is_none()) else { return false };
            if *purpose == how.purpose && range.start <= other.start && other.end <= range.end {
                rest = rest.iter().flat_map(|part| part.without(*other)).collect();
                joined.push(load);
            }
            true
        });
        for part in rest {
            let load = load(Arc::clone(inner), Arc::clone(inode), part, how).boxed().shared();
            if let Some(weak) = load.downgrade() {
                under_way.push((part, how.purpose, weak));
            }
            joined.push(load);
        }
        joined
    }
}

/// Asks for a range until it is loaded. Gives up if nothing more of it is for as long as this client waits for anything.
async fn load(inner: Arc<Inner>, inode: Arc<Inode>, range: Extent, how: How) -> FsResult<()> {
    let session = &inner.session;
    let len = range.end - range.start;
    let missing = || inode.state().all_missing(range.start, len, how.purpose);
    let left = || missing().iter().map(|part| part.end - part.start).sum::<u64>();
    let reading = how.purpose == Purpose::Read;
    let patience = session.patience();
    let (mut backoff, mut since, mut least) = (Backoff::new(None, &session.stop), Instant::now(), left());
    session.names.told(session, &[inode.fid]).await?;
    loop {
        let (asked, began) = (inode.asks(), Instant::now());
        let loaded = match session.load(inode.fid, range, how.sequential, reading && !inode.distrusts(), HOLD).await {
            // An MDS that has no repositories has nothing in them.
            Err(e) if e.code == FsCode::NotSupported => {
                Loaded { remote: None, layout: Layout::clone(&inode.view().layout), filled: Vec::new() }
            }
            answer => answer.map_err(|e| explain(&inode, range, e))?,
        };
        inode.observe_load(asked, loaded);
        let now = left();
        if now == 0 {
            return Ok(());
        }
        if now < least {
            (backoff, since, least) = (Backoff::new(None, &session.stop), Instant::now(), now);
        }
        if patience.is_some_and(|limit| since.elapsed() >= limit) {
            let what = format!("nothing of bytes {} to {} of {} was loaded", range.start, range.end, inode.fid);
            return Err(FsError::new(
                FsCode::TimedOut,
                format!("{what} from its repository for {:?}", since.elapsed()),
            )
            .with_hint("check that a sateen-dra-sync runs; `sateen repo list` shows the repositories"));
        }
        if began.elapsed() < HELD_MIN && !backoff.pause().await {
            return Err(FsError::new(FsCode::Interrupted, "the client is being closed"));
        }
    }
}

/// What the MDS says of a range that could not be loaded, as an error of the one who wanted to read or write it.
fn explain(inode: &Inode, range: Extent, e: FsError) -> FsError {
    // Of a file that is gone, a server that is away and a full file system programs hear as of any other.
    let code = match e.code {
        code if code.is_retryable() => code,
        FsCode::Stale | FsCode::NotFound | FsCode::NoSpace | FsCode::QuotaExceeded => e.code,
        _ => FsCode::Io,
    };
    let message = format!("bytes {} to {} of {} were not loaded: {}", range.start, range.end, inode.fid, e.message);
    FsError { code, message, hint: e.hint }
}
