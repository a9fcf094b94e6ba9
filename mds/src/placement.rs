//! Which OSTs a component's stripes go to. Pure: a view of the OSTs, a wish, and a number that moves on.
//!
//! As in Lustre: while free space is balanced (the emptiest and the fullest differ by less than [`BALANCED_PERCENT`])
//! OSTs are taken in turn; otherwise by chance, weighted by free space. Stripes of one component lie on distinct OSTs.
//! OSTs that are down, failed or full are passed over, and a component gets fewer stripes rather than an error.

use sateen_types::layout::STRIPE_COUNT_ALL;
use sateen_types::{FsCode, FsError, FsResult, OstIndex, StripePattern};

/// Free space within so many percent counts as balanced (Lustre's `qos_threshold_rr`).
pub const BALANCED_PERCENT: u64 = 17;
/// An OST with less than this to write, in bytes, gets no new objects: what is left is for those it has.
pub const FULL_BYTES: u64 = 16 << 20;

/// What placement knows of an OST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub index: OstIndex,
    /// Heard of lately and able to write.
    pub up: bool,
    /// Bytes that may still be written.
    pub available: u64,
}

impl Candidate {
    fn usable(&self) -> bool {
        self.up && self.available >= FULL_BYTES
    }
}

/// The OST of each stripe, at least one.
///
/// `NoSpace`: every OST that is up is full, or none is registered. `Unavailable`: none is up. `Invalid`: an OST that is
/// named does not exist.
pub fn place(osts: &[Candidate], wish: &StripePattern, rotor: u64) -> FsResult<Vec<OstIndex>> {
    if let Some(pool) = &wish.pool {
        return Err(FsError::new(FsCode::Invalid, format!("OST pool {pool} does not exist"))
            .with_hint("leave the pool out of the layout"));
    }
    for named in wish.ost_list.iter().chain(&wish.start) {
        if !osts.iter().any(|o| o.index == *named) {
            return Err(FsError::new(FsCode::Invalid, format!("there is no OST {named}"))
                .with_hint("list the OSTs with: lfs osts"));
        }
    }
    if !wish.ost_list.is_empty() {
        return place_listed(osts, &wish.ost_list);
    }
    let mut usable: Vec<Candidate> = osts.iter().copied().filter(Candidate::usable).collect();
    usable.sort_unstable_by_key(|o| o.index);
    if usable.is_empty() {
        return Err(none_usable(osts));
    }
    let count = match wish.stripe_count {
        STRIPE_COUNT_ALL => usable.len(),
        n => usize::from(n.max(1)).min(usable.len()),
    };
    let start = wish.start.and_then(|s| usable.iter().position(|o| o.index == s));
    if wish.start.is_some() && start.is_none() {
        tracing::debug!(start = ?wish.start, "the OST asked for is not usable; another is taken");
    }
    if start.is_some() || is_balanced(&usable) {
        let first = start.unwrap_or((rotor % usable.len() as u64) as usize);
        return Ok((0..count).map(|i| usable[(first + i) % usable.len()].index).collect());
    }
    Ok(by_weight(usable, count, rotor))
}

fn place_listed(osts: &[Candidate], list: &[OstIndex]) -> FsResult<Vec<OstIndex>> {
    for index in list {
        let ost = osts.iter().find(|o| o.index == *index);
        match ost {
            Some(o) if o.usable() => {}
            Some(o) if o.up => return Err(FsError::new(FsCode::NoSpace, format!("OST {index} is full"))),
            _ => {
                return Err(FsError::new(FsCode::Unavailable, format!("OST {index} is down"))
                    .with_hint("start its OSS, or name other OSTs"));
            }
        }
    }
    Ok(list.to_vec())
}

fn none_usable(osts: &[Candidate]) -> FsError {
    if osts.is_empty() {
        return FsError::new(FsCode::NoSpace, "the cluster has no OST").with_hint("start an OSS: sateen-oss");
    }
    if osts.iter().any(|o| o.up) {
        return FsError::new(FsCode::NoSpace, "every OST that is up is full").with_hint("remove files or add OSTs");
    }
    FsError::new(FsCode::Unavailable, format!("none of the {} OSTs is up", osts.len()))
        .with_hint("start the OSSs and look at: sateen status")
}

fn is_balanced(usable: &[Candidate]) -> bool {
    let free = usable.iter().map(|o| o.available);
    let (least, most) = (free.clone().min().unwrap_or(0), free.max().unwrap_or(0));
    u128::from(most - least) * 100 < u128::from(most) * u128::from(BALANCED_PERCENT)
}

/// Draws `count` distinct OSTs, each draw weighted by free space.
fn by_weight(mut left: Vec<Candidate>, count: usize, seed: u64) -> Vec<OstIndex> {
    let mut state = seed;
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        let total: u128 = left.iter().map(|o| u128::from(o.available)).sum();
        let mut ticket = (u128::from(splitmix(&mut state)) * total) >> 64;
        let at = left.iter().position(|o| match ticket.checked_sub(u128::from(o.available)) {
            Some(rest) => {
                ticket = rest;
                false
            }
            None => true,
        });
        chosen.push(left.swap_remove(at.unwrap_or(0)).index);
    }
    chosen
}

/// The splitmix64 generator: the same numbers from the same seed everywhere.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn ost(index: u16, up: bool, available: u64) -> Candidate {
        Candidate { index: OstIndex(index), up, available }
    }

    proptest! {
        #[test]
        fn stripes_lie_on_distinct_usable_osts_as_many_as_there_are(
            parts in proptest::collection::vec((any::<bool>(), 0u64..100 * GIB), 0..20),
            count in prop_oneof![1u16..24, Just(STRIPE_COUNT_ALL)], rotor in any::<u64>(),
        ) {
            let osts: Vec<_> = parts.iter().zip(0..).map(|((up, free), i)| ost(i, *up, *free)).collect();
            let usable = osts.iter().filter(|o| o.usable()).count();
            match place(&osts, &StripePattern::raid0(count), rotor) {
                Ok(chosen) => {
                    prop_assert_eq!(chosen.len(), usable.min(usize::from(count)));
                    let mut distinct = chosen.clone();
                    distinct.sort_unstable();
                    distinct.dedup();
                    prop_assert_eq!(distinct.len(), chosen.len());
                    prop_assert!(chosen.iter().all(|c| osts[usize::from(c.0)].usable()));
                }
                Err(e) => {
                    prop_assert_eq!(usable, 0);
                    let down = !osts.is_empty() && osts.iter().all(|o| !o.up);
                    prop_assert_eq!(e.code, if down { FsCode::Unavailable } else { FsCode::NoSpace });
                }
            }
        }

        #[test]
        fn balanced_osts_are_taken_in_turn(rotor in 0u64..1000) {
            let osts: Vec<_> = (0..4).map(|i| ost(i, true, 100 * GIB - u64::from(i))).collect();
            let chosen = place(&osts, &StripePattern::raid0(1), rotor).expect("usable");
            prop_assert_eq!(chosen, vec![OstIndex((rotor % 4) as u16)]);
        }
    }

    #[test]
    fn an_emptier_ost_gets_its_share_of_new_files() {
        let osts = [ost(0, true, 30 * GIB), ost(1, true, 10 * GIB)];
        let on_first = (0..10_000)
            .filter(|rotor| place(&osts, &StripePattern::raid0(1), *rotor).expect("usable") == [OstIndex(0)])
            .count();
        assert!((7_200..7_800).contains(&on_first), "{on_first} of 10,000, 7,500 expected");
    }

    #[test]
    fn a_start_or_a_list_is_honoured_and_unknown_osts_are_refused() {
        let osts: Vec<_> = (0..4).map(|i| ost(i, i != 3, GIB)).collect();
        let mut wish = StripePattern { start: Some(OstIndex(2)), ..StripePattern::raid0(2) };
        assert_eq!(place(&osts, &wish, 9).expect("usable"), [OstIndex(2), OstIndex(0)]);
        wish.start = Some(OstIndex(7));
        assert_eq!(place(&osts, &wish, 9).expect_err("unknown").code, FsCode::Invalid);
        wish = StripePattern { ost_list: vec![OstIndex(1), OstIndex(0)], ..StripePattern::raid0(2) };
        assert_eq!(place(&osts, &wish, 9).expect("usable"), [OstIndex(1), OstIndex(0)]);
        wish.ost_list = vec![OstIndex(1), OstIndex(3)];
        assert_eq!(place(&osts, &wish, 9).expect_err("down").code, FsCode::Unavailable);
    }
}
