//! Files are released by themselves when an OST is nearly full, so that a dataset may be larger than the file system: what was not used
//! for longest goes, what is read comes. A range that an OST had no space for asks for room and is fetched again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sateen_types::repository::AutoRelease;
use sateen_types::{Credential, Fid, FsCode, FsResult, OstIndex, Space};
use tokio::sync::Notify;

use super::{Answer, unexpected};
use crate::fs::FileSystem;
use crate::namespace::repository::tasks::{self, TaskChange};
use crate::namespace::repository::{self, Change, oldest};
use crate::registry::OstState;
use crate::store::ReadTxn;

/// Files that one look at all finds, the most that are released before the next: some megabytes of memory.
const FILES_MAX: usize = 65_536;
/// Of those, at once.
const TOGETHER: usize = 64;
/// Between looks at the OSTs.
const LOOK: Duration = Duration::from_millis(500);
/// Between looks while nothing is released by itself.
const IDLE: Duration = Duration::from_secs(60);
/// How long what was released counts as free though the OST has not said so: its objects go soon, and then it tells.
const CREDIT: Duration = Duration::from_secs(4);
/// So often in a row nothing can be released (closes of files may be on their way) before whoever asks for room is told so.
const IN_VAIN_MAX: u32 = 10;
/// How long that is known.
const STUCK: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Room {
    state: Mutex<State>,
    told: Notify,
}

#[derive(Debug, Default)]
struct State {
    marks: AutoRelease,
    /// OSTs that had no space for something.
    asked: BTreeSet<OstIndex>,
    /// What was released of each OST, and when.
    credit: BTreeMap<OstIndex, Vec<(Instant, u64)>>,
    /// How often in a row nothing could be released.
    in_vain: u32,
    /// Until then nothing can be released.
    stuck_until: Option<Instant>,
}

/// Bytes that are to be free of each OST. Pure.
fn wanted(
    marks: AutoRelease,
    osts: &[(OstIndex, Space)],
    asked: &BTreeSet<OstIndex>,
    credit: impl Fn(OstIndex) -> u64,
) -> BTreeMap<OstIndex, u64> {
    let mut wanted = BTreeMap::new();
    for (ost, space) in osts {
        let all = space.used.saturating_add(space.available);
        let used = space.used.saturating_sub(credit(*ost));
        let of_all = |percent: u32| (u128::from(all) * u128::from(percent) / 100) as u64;
        if used < of_all(marks.high) && !asked.contains(ost) {
            continue;
        }
        // One that was full a moment ago may not have said so yet: then a tenth of the way.
        let least = if asked.contains(ost) { of_all(marks.high - marks.low).max(1) } else { 1 };
        wanted.insert(*ost, used.saturating_sub(of_all(marks.low)).max(least));
    }
    wanted
}

impl Room {
    pub fn new(tx: &dyn ReadTxn) -> FsResult<Room> {
        let state = State { marks: tasks::auto_release(tx)?, ..State::default() };
        Ok(Room { state: Mutex::new(state), told: Notify::new() })
    }
}

impl State {
    fn credit_of(&mut self, now: Instant) -> BTreeMap<OstIndex, u64> {
        self.credit.values_mut().for_each(|of| of.retain(|(at, _)| now.saturating_duration_since(*at) < CREDIT));
        self.credit.iter().map(|(ost, of)| (*ost, of.iter().map(|(_, bytes)| bytes).sum())).collect()
    }
}

impl FileSystem {
    /// When files are released by themselves.
    pub fn auto_release(&self) -> AutoRelease {
        self.shared.repositories.room.state.lock().marks
    }

    /// Sets when files are released by themselves.
    pub async fn set_auto_release(&self, marks: AutoRelease) -> FsResult<AutoRelease> {
        let Answer::Task(_) = self.change(Change::Task(TaskChange::SetAutoRelease(marks))).await? else {
            return Err(unexpected());
        };
        let room = &self.shared.repositories.room;
        {
            let mut state = room.state.lock();
            (state.marks, state.stuck_until, state.in_vain) = (marks, None, 0);
        }
        room.told.notify_one();
        tracing::info!(fs = %self.info.name, high = marks.high, low = marks.low, "files are released by themselves");
        Ok(marks)
    }

    /// An OST of a file had no space; `None`: none had. Gives whether room is being made, so that it is to be tried again.
    pub(super) async fn make_room(&self, fid: Option<Fid>) -> bool {
        let osts: BTreeSet<OstIndex> = match fid {
            Some(fid) => match self.ask(move |tx| repository::layout_and_remote(tx, fid)).await {
                Ok((layout, _)) => layout.components.iter().flat_map(|c| c.osts.iter().copied()).collect(),
                Err(_) => return false,
            },
            None => self.shared.registry.read().candidates().iter().map(|ost| ost.index).collect(),
        };
        let room = &self.shared.repositories.room;
        {
            let mut state = room.state.lock();
            if !state.marks.is_on() || state.stuck_until.is_some_and(|until| Instant::now() < until) {
                return false;
            }
            state.asked.extend(osts);
        }
        room.told.notify_one();
        true
    }

    /// Waits until room may be wanted, `pause` at most.
    pub async fn room_told(&self, pause: Duration) {
        // Either way the next look decides.
        let _ = tokio::time::timeout(pause, self.shared.repositories.room.told.notified()).await;
    }

    /// Releases files if an OST is nearly full. Gives how long there is nothing to do.
    pub async fn step_room(&self) -> FsResult<Duration> {
        let now = Instant::now();
        let osts: Vec<(OstIndex, Space)> = {
            let registry = self.shared.registry.read();
            registry.list(now).into_iter().filter(|o| o.state == OstState::Up).map(|o| (o.index, o.space)).collect()
        };
        let (marks, mut wanted) = {
            let mut state = self.shared.repositories.room.state.lock();
            if !state.marks.is_on() {
                return Ok(IDLE);
            }
            let (asked, credit) = (std::mem::take(&mut state.asked), state.credit_of(now));
            let credit = |ost| credit.get(&ost).copied().unwrap_or(0);
            (state.marks, wanted(state.marks, &osts, &asked, credit))
        };
        if wanted.is_empty() {
            return Ok(LOOK);
        }
        let full: BTreeSet<OstIndex> = wanted.keys().copied().collect();
        let old = self.read(move |tx| oldest(tx, &full, FILES_MAX)).await?;
        let (mut files, mut bytes) = (0u64, 0u64);
        let mut old = old.into_iter().peekable();
        while !wanted.is_empty() && old.peek().is_some() {
            let batch: Vec<_> =
                old.by_ref().take(TOGETHER).filter(|o| o.osts.iter().any(|ost| wanted.contains_key(ost))).collect();
            // At once, so that few commits carry them.
            let releases = batch.iter().map(|one| self.change(Change::Release { fid: one.fid, who: Credential::ROOT }));
            let released = futures::future::join_all(releases).await;
            let at = Instant::now();
            for (one, released) in batch.iter().zip(released) {
                match released {
                    Ok(_) => {}
                    // Somebody uses it, or has changed it.
                    Err(e) if matches!(e.code, FsCode::Busy | FsCode::Invalid | FsCode::Stale | FsCode::NoData) => {
                        continue;
                    }
                    Err(e) if e.code.is_retryable() => continue,
                    Err(e) => return Err(e),
                }
                self.shared.repositories.lock().forget(one.fid);
                files += 1;
                bytes += one.bytes;
                let each = one.bytes / one.osts.len().max(1) as u64;
                for ost in &one.osts {
                    let mut state = self.shared.repositories.room.state.lock();
                    state.credit.entry(*ost).or_default().push((at, each));
                    if let Some(left) = wanted.get_mut(ost) {
                        *left = left.saturating_sub(each);
                    }
                }
                wanted.retain(|_, left| *left > 0);
            }
        }
        {
            let mut state = self.shared.repositories.room.state.lock();
            state.in_vain = if files == 0 { state.in_vain.saturating_add(1) } else { 0 };
            state.stuck_until = (state.in_vain >= IN_VAIN_MAX).then(|| Instant::now() + STUCK);
        }
        if files > 0 {
            tracing::info!(fs = %self.info.name, files, bytes, high = marks.high, low = marks.low,
                "files that were not used for longest were released: OSTs are nearly full");
            self.shared.repositories.tell();
        }
        Ok(LOOK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: AutoRelease = AutoRelease { high: 90, low: 80 };

    fn ost(index: u16, used: u64) -> (OstIndex, Space) {
        (OstIndex(index), Space { total: 1000, used, available: 1000 - used, objects: 0 })
    }

    #[test]
    fn what_is_above_the_high_mark_is_to_come_down_to_the_low_one() {
        let none = BTreeSet::new();
        let osts = [ost(0, 899), ost(1, 900), ost(2, 1000)];
        let found = wanted(MARKS, &osts, &none, |_| 0);
        assert_eq!(found, BTreeMap::from([(OstIndex(1), 100), (OstIndex(2), 200)]));
        // What was released and is not told yet.
        let found = wanted(MARKS, &osts, &none, |ost| if ost == OstIndex(2) { 120 } else { 0 });
        assert_eq!(found, BTreeMap::from([(OstIndex(1), 100)]));
    }

    #[test]
    fn one_that_had_no_space_gets_some_whatever_it_last_said() {
        let asked = BTreeSet::from([OstIndex(0), OstIndex(1)]);
        let found = wanted(MARKS, &[ost(0, 500), ost(1, 950), ost(2, 500)], &asked, |_| 0);
        assert_eq!(found, BTreeMap::from([(OstIndex(0), 100), (OstIndex(1), 150)]));
    }
}
