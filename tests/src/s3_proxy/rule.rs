//! What goes wrong, with which requests, how often.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::operation::Operation;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// 503 `SlowDown`; the store never hears of the request.
    SlowDown,
    /// 500 `InternalError`; the store never hears of it.
    Internal,
    /// 403 `AccessDenied`; the store never hears of it.
    Denied,
    /// 400 `ExpiredToken`; the store never hears of it.
    Expired,
    /// No answer at all, until the other side hangs up; the store never hears of it.
    Silent,
    /// The connection is reset; the store never hears of it.
    Reset,
    /// Answered late.
    Slow(Duration),
    /// Of a request with a body half of it comes to the store, of the answer to any other half comes back; then the connection
    /// is reset.
    Cut,
    /// Done, and then the connection is reset.
    AnswerLost,
    /// 200, and in the body that it went wrong; the store never hears of it.
    ErrorInSuccess,
    /// Done, and answered with 200 and a body that says it went wrong.
    ErrorAfterDone,
    /// A store that ignores `If-Match`: other bytes, with another ETag.
    OtherVersion,
    /// A store that ignores `Range`: the whole object.
    NoRange,
    /// A store that knows no conditions.
    NoConditions,
}

/// Requests to which a fault happens. The n-th request that a rule fits has the same fate in every run with the same seed.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    operations: Vec<Operation>,
    path: String,
    token: Option<String>,
    chance: f64,
    left: Option<u32>,
}

impl Rule {
    /// `fault` happens to every request that is one of `operations`.
    pub fn new(fault: Fault, operations: &[Operation]) -> Rule {
        Rule { fault, operations: operations.to_vec(), path: String::new(), token: None, chance: 1.0, left: None }
    }

    /// Only to those whose path contains `part`, as it is on the wire.
    #[must_use]
    pub fn of(self, part: &str) -> Rule {
        Rule { path: part.to_owned(), ..self }
    }

    /// Only to those whose keys have this session token.
    #[must_use]
    pub fn with_token(self, token: &str) -> Rule {
        Rule { token: Some(token.to_owned()), ..self }
    }

    /// Only to this share of them: 0 to 1.
    #[must_use]
    pub fn chance(self, chance: f64) -> Rule {
        Rule { chance, ..self }
    }

    /// At most so often.
    #[must_use]
    pub fn times(self, count: u32) -> Rule {
        Rule { left: Some(count), ..self }
    }
}

/// A rule in force.
#[derive(Debug)]
pub(super) struct Live {
    rule: Rule,
    rng: StdRng,
}

impl Live {
    pub(super) fn new(rule: Rule, seed: u64) -> Live {
        Live { rule, rng: StdRng::seed_from_u64(seed) }
    }

    /// What happens to a request, if this rule says so.
    pub(super) fn judge(&mut self, operation: Operation, path: &str, token: Option<&str>) -> Option<Fault> {
        let rule = &mut self.rule;
        if rule.token.as_deref().is_some_and(|wanted| token != Some(wanted)) {
            return None;
        }
        if !rule.operations.contains(&operation) || !path.contains(&rule.path) || rule.left == Some(0) {
            return None;
        }
        if rule.chance < 1.0 && !self.rng.random_bool(rule.chance) {
            return None;
        }
        if let Some(left) = &mut rule.left {
            *left -= 1;
        }
        Some(rule.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let fates = |seed| {
            let rule = Rule::new(Fault::Reset, &[Operation::Get]).chance(0.3).times(10);
            let mut live = Live::new(rule, seed);
            (0..200).map(|_| live.judge(Operation::Get, "/b/k", None).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
        assert_eq!(fates(7).iter().filter(|fate| **fate).count(), 10);
    }

    #[test]
    fn a_rule_is_of_what_it_names() {
        let mut live = Live::new(Rule::new(Fault::Denied, &[Operation::Get, Operation::Head]).of("/secret"), 1);
        assert_eq!(live.judge(Operation::Get, "/b/secret", None), Some(Fault::Denied));
        assert_eq!(live.judge(Operation::Head, "/b/secret", None), Some(Fault::Denied));
        assert_eq!(live.judge(Operation::Put, "/b/secret", None), None);
        assert_eq!(live.judge(Operation::Get, "/b/open", None), None);
        let mut old = Live::new(Rule::new(Fault::Expired, &[Operation::Get]).with_token("old"), 1);
        assert_eq!(old.judge(Operation::Get, "/b/k", Some("old")), Some(Fault::Expired));
        assert_eq!(old.judge(Operation::Get, "/b/k", Some("new")), None);
        assert_eq!(old.judge(Operation::Get, "/b/k", None), None);
    }
}
