//! What one client alone would see of a value that is written and read as a whole.

use crate::linear::Spec;

/// One value, known when it begins.
#[derive(Debug)]
pub struct Register;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Replaces the value.
    Write(u64),
    /// Answers the value.
    Read,
}

impl Spec for Register {
    type State = u64;
    type Op = Op;
    /// The value that was read, or was written.
    type Answer = u64;

    fn step(&self, state: &u64, op: &Op, answer: Option<&u64>) -> Option<u64> {
        let after = match op {
            Op::Write(value) => *value,
            Op::Read => *state,
        };
        answer.is_none_or(|answer| *answer == after).then_some(after)
    }
}
