//! Errors of writes that had been accepted: kept until every open file has reported them once. Pure.

use sateen_types::{FsError, FsResult};

/// The last error of a file, numbered.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    number: u64,
    error: Option<FsError>,
    reported: bool,
}

impl Failure {
    /// Records an error. The first one nobody has seen is the one to tell; what follows is often its consequence.
    pub fn record(&mut self, error: FsError) {
        if self.reported || self.error.is_none() {
            self.number += 1;
            self.error = Some(error);
            self.reported = false;
        }
    }

    /// Where a new open file begins: an error nobody has seen is the next one's to report.
    pub fn seen_by_new_file(&self) -> u64 {
        if self.reported { self.number } else { self.number.saturating_sub(1) }
    }

    /// The error after number `seen`, once.
    pub fn take(&mut self, seen: &mut u64) -> FsResult<()> {
        if self.number == *seen {
            return Ok(());
        }
        *seen = self.number;
        self.reported = true;
        self.error.clone().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::FsCode;

    #[test]
    fn every_open_file_reports_an_error_once_and_later_ones_do_not() {
        let mut failure = Failure::default();
        let (mut a, mut b) = (failure.seen_by_new_file(), failure.seen_by_new_file());
        failure.take(&mut a).expect("nothing yet");
        failure.record(FsCode::NoSpace.into());
        failure.record(FsCode::Io.into());
        assert_eq!(failure.take(&mut a).expect_err("first").code, FsCode::NoSpace);
        failure.take(&mut a).expect("once");
        let mut late = failure.seen_by_new_file();
        failure.take(&mut late).expect("reported before it was opened");
        assert_eq!(failure.take(&mut b).expect_err("its own").code, FsCode::NoSpace);
        failure.record(FsCode::Io.into());
        let mut heir = failure.seen_by_new_file();
        assert_eq!(failure.take(&mut heir).expect_err("nobody has seen it").code, FsCode::Io);
    }
}
