//! Ranges that are stored and not yet durable. Readers may have them as long as their OSTs are not restarted, which they see by
//! themselves; so nothing of this has to survive anything. It ends with the assignment: when that has failed or is given to somebody
//! else the range is not there any more, or may not be for long, and when it has succeeded the range is loaded.

use sateen_types::repository::Filled;
use sateen_types::{Fid, OstIndex, SessionId, Verifier};

use super::{LoadTable, Task};

impl LoadTable {
    /// The range that a session fetches under this number is stored. `false` if that is not its any more.
    pub fn fill(&mut self, session: SessionId, number: u64, verifiers: Vec<(OstIndex, Verifier)>) -> bool {
        let Some(out) = self.out.get(&number).filter(|out| out.session == Some(session)) else { return false };
        let Task::Fetch { fid, .. } = &out.task else { return false };
        let Some(file) = self.files.get_mut(fid) else { return false };
        file.filled.insert(number, verifiers);
        file.changed.notify_waiters();
        true
    }

    /// What of a file is stored and not yet durable.
    pub fn filled(&self, fid: Fid) -> Vec<Filled> {
        let Some(file) = self.files.get(&fid) else { return Vec::new() };
        let ranges = file.filled.iter().filter_map(|(number, verifiers)| Some((file.out.get(number)?, verifiers)));
        ranges.map(|(range, verifiers)| Filled { range: *range, verifiers: verifiers.clone() }).collect()
    }
}
