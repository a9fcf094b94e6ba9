//! Where findings go: counted and handed on one by one, so that a check needs no memory for them.

use std::ops::ControlFlow;

use super::{Finding, FsckEvent, Repair, Tally};
use crate::status::{FsCode, FsError, FsResult};

/// Rows and blocks of data between two reports of progress.
const STEPS: u64 = 2048;
/// Bytes that count as one step.
const STEP_BYTES: u64 = 64 << 10;

/// The reporter of one check.
pub struct Report<'a> {
    sink: &'a mut dyn FnMut(FsckEvent) -> ControlFlow<()>,
    tally: Tally,
    steps: u64,
}

impl<'a> Report<'a> {
    /// Reports to `sink`, which ends the check by breaking.
    pub fn new(sink: &'a mut dyn FnMut(FsckEvent) -> ControlFlow<()>) -> Report<'a> {
        Report { sink, tally: Tally::default(), steps: 0 }
    }

    /// Something is wrong.
    pub fn finding(&mut self, finding: Finding) -> FsResult<()> {
        if finding.kind.is_notice() {
            self.tally.notices += 1;
        } else {
            self.tally.damage += 1;
        }
        self.tally.repaired += u64::from(finding.repair == Repair::Done);
        self.send(FsckEvent::Finding(finding))
    }

    /// Counts.
    pub fn count(&mut self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally);
    }

    /// Some work is done: `bytes` were verified, or, with 0, a row was looked at.
    pub fn step(&mut self, bytes: u64) -> FsResult<()> {
        self.tally.bytes_verified += bytes;
        self.steps += 1 + bytes / STEP_BYTES;
        if self.steps < STEPS {
            return Ok(());
        }
        self.steps = 0;
        self.send(FsckEvent::Progress(self.tally))
    }

    /// The check is over.
    pub fn done(mut self) -> FsResult<Tally> {
        let tally = self.tally;
        self.send(FsckEvent::Done(tally))?;
        Ok(tally)
    }

    fn send(&mut self, event: FsckEvent) -> FsResult<()> {
        match (self.sink)(event) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(FsError::new(FsCode::Interrupted, "the check was stopped")),
        }
    }
}
