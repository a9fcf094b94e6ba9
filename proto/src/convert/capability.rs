//! Capabilities, grants and recalls.

use sateen_types::{Capability, Fid, FsError, FsResult, Grant, Recall, Unreported, Using};

use super::{bad, fid, known};
use crate::mds;

impl From<Capability> for mds::Capability {
    fn from(capability: Capability) -> mds::Capability {
        match capability {
            Capability::None => mds::Capability::None,
            Capability::Read => mds::Capability::Read,
            Capability::Write => mds::Capability::Write,
        }
    }
}

/// A capability that must be there.
pub fn capability(number: i32) -> FsResult<Capability> {
    Ok(match known(number, "capability")? {
        mds::Capability::None => Capability::None,
        mds::Capability::Read => Capability::Read,
        mds::Capability::Write => Capability::Write,
        mds::Capability::Unspecified => return Err(bad("capability", "missing")),
    })
}

impl From<Using> for mds::Using {
    fn from(using: Using) -> mds::Using {
        match using {
            Using::Nothing => mds::Using::Nothing,
            Using::Reading => mds::Using::Reading,
            Using::Writing => mds::Using::Writing,
        }
    }
}

/// What open files do; must be there.
pub fn using(number: i32) -> FsResult<Using> {
    Ok(match known(number, "using")? {
        mds::Using::Nothing => Using::Nothing,
        mds::Using::Reading => Using::Reading,
        mds::Using::Writing => Using::Writing,
        mds::Using::Unspecified => return Err(bad("using", "missing")),
    })
}

impl From<Grant> for mds::Grant {
    fn from(grant: Grant) -> mds::Grant {
        mds::Grant { capability: mds::Capability::from(grant.capability).into(), number: grant.number }
    }
}

/// A grant. An MDS that knows nothing of capabilities gives none.
pub fn grant(wire: Option<mds::Grant>) -> FsResult<Grant> {
    let Some(wire) = wire else { return Ok(Grant::default()) };
    Ok(Grant { capability: capability(wire.capability)?, number: wire.number })
}

impl From<&(Fid, Recall)> for mds::Recall {
    fn from((fid, recall): &(Fid, Recall)) -> mds::Recall {
        let keep = mds::Capability::from(recall.keep).into();
        mds::Recall { fid: Some((*fid).into()), number: recall.number, keep }
    }
}

impl TryFrom<mds::Recall> for (Fid, Recall) {
    type Error = FsError;
    fn try_from(wire: mds::Recall) -> FsResult<(Fid, Recall)> {
        let keep = capability(wire.keep)?;
        Ok((fid(wire.fid, "fid")?, Recall { number: wire.number, keep }))
    }
}

/// Use and capability of one open file in a statement of all, as `RenewRequest.uses` says.
pub fn use_to_wire(using: Using, capability: Capability) -> u32 {
    let using = match using {
        Using::Nothing => 0,
        Using::Reading => 1,
        Using::Writing => 2,
    };
    let capability = match capability {
        Capability::None => 0,
        Capability::Read => 1,
        Capability::Write => 2,
    };
    using | capability << 2
}

/// See [`use_to_wire`].
pub fn use_from_wire(number: u32) -> FsResult<(Using, Capability)> {
    let using = match number & 3 {
        1 => Using::Reading,
        2 => Using::Writing,
        _ => return Err(bad("uses", format_args!("{number} is no use of an open file"))),
    };
    let capability = match number >> 2 {
        0 => Capability::None,
        1 => Capability::Read,
        2 => Capability::Write,
        _ => return Err(bad("uses", format_args!("{number} has no capability"))),
    };
    Ok((using, capability))
}

/// What an answer says of a file that was written.
pub fn unreported(answer: &mds::AnswerRequest) -> FsResult<Unreported> {
    let mtime = answer.mtime.map(TryInto::try_into).transpose()?;
    if answer.size > sateen_types::limits::FILE_SIZE_MAX {
        return Err(bad("size", format_args!("{} is above the largest file", answer.size)));
    }
    Ok(Unreported { size: answer.size, mtime })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_says_what_was_meant_and_nothing_else_is_taken() {
        for using in [Using::Reading, Using::Writing] {
            for capability in [Capability::None, Capability::Read, Capability::Write] {
                assert_eq!(use_from_wire(use_to_wire(using, capability)).expect("known"), (using, capability));
            }
        }
        let taken = (0..=64).filter(|n| use_from_wire(*n).is_ok()).count();
        assert_eq!(taken, 6);
    }
}
