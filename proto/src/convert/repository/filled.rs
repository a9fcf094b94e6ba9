//! What is stored and not yet durable.

use sateen_types::limits::{FILE_ASSIGNMENTS_MAX, FILLED_OSTS_MAX};
use sateen_types::repository::Filled;
use sateen_types::{FsError, FsResult, OstIndex, Verifier};

use super::super::{bad, ost_index, verifier};
use super::{loaded_range, loaded_range_to_wire};
use crate::mds;

/// Of a FilledRequest: one of each OST.
pub fn ost_verifiers(wire: Vec<mds::OstVerifier>) -> FsResult<Vec<(OstIndex, Verifier)>> {
    if wire.is_empty() || wire.len() > FILLED_OSTS_MAX {
        return Err(bad("verifiers", format_args!("{}, 1 to {FILLED_OSTS_MAX} are taken", wire.len())));
    }
    let one = |w: mds::OstVerifier| Ok((ost_index(w.ost)?, verifier(&w.verifier)?));
    let mut all = wire.into_iter().map(one).collect::<FsResult<Vec<_>>>()?;
    all.sort_unstable_by_key(|(ost, _)| *ost);
    match all.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(bad("verifiers", format_args!("two of OST {}", pair[0].0))),
        None => Ok(all),
    }
}

/// As they travel.
pub fn ost_verifiers_to_wire(verifiers: &[(OstIndex, Verifier)]) -> Vec<mds::OstVerifier> {
    let one = |(ost, verifier): &(OstIndex, Verifier)| mds::OstVerifier {
        ost: u32::from(ost.0),
        verifier: verifier.0.to_vec(),
    };
    verifiers.iter().map(one).collect()
}

/// Of a LoadReply.
pub fn filled(wire: Vec<mds::FilledRange>) -> FsResult<Vec<Filled>> {
    if wire.len() > FILE_ASSIGNMENTS_MAX {
        return Err(bad("filled", format_args!("{} ranges, at most {FILE_ASSIGNMENTS_MAX}", wire.len())));
    }
    wire.into_iter().map(TryInto::try_into).collect()
}

impl From<&Filled> for mds::FilledRange {
    fn from(f: &Filled) -> mds::FilledRange {
        mds::FilledRange { range: Some(loaded_range_to_wire(f.range)), verifiers: ost_verifiers_to_wire(&f.verifiers) }
    }
}

impl TryFrom<mds::FilledRange> for Filled {
    type Error = FsError;
    fn try_from(w: mds::FilledRange) -> FsResult<Filled> {
        Ok(Filled { range: loaded_range(w.range)?, verifiers: ost_verifiers(w.verifiers)? })
    }
}

#[cfg(test)]
mod tests {
    use sateen_types::Extent;

    use super::*;

    fn sample() -> Filled {
        let verifiers = vec![(OstIndex(0), Verifier([1; 16])), (OstIndex(3), Verifier([2; 16]))];
        Filled { range: Extent { start: 0, end: 65_536 }, verifiers }
    }

    #[test]
    fn a_filled_range_survives_the_wire() {
        let wire = vec![mds::FilledRange::from(&sample())];
        assert_eq!(filled(wire).expect("good"), [sample()]);
    }

    #[test]
    fn what_is_no_list_of_verifiers_is_refused() {
        let wire = || ost_verifiers_to_wire(&sample().verifiers);
        ost_verifiers(Vec::new()).expect_err("none");
        ost_verifiers([wire(), wire()].concat()).expect_err("twice");
        ost_verifiers(vec![mds::OstVerifier { ost: 70_000, verifier: vec![0; 16] }]).expect_err("no OST");
        ost_verifiers(vec![mds::OstVerifier { ost: 1, verifier: vec![0; 15] }]).expect_err("too short");
        let many = (0..=FILLED_OSTS_MAX as u32).map(|ost| mds::OstVerifier { ost, verifier: vec![0; 16] });
        ost_verifiers(many.collect()).expect_err("too many");
        filled(vec![mds::FilledRange::from(&sample()); FILE_ASSIGNMENTS_MAX + 1]).expect_err("too many");
    }
}
