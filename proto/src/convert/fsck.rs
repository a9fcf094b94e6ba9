//! Findings and progress of checks.

use sateen_types::{Finding, FindingKind, FsError, FsResult, FsckEvent, Repair, Tally};

use super::{bad, required};
use crate::common;

/// Longest description that is sent or taken.
const WHAT_CHARS_MAX: usize = 1024;

fn cut(text: &str) -> String {
    text.chars().take(WHAT_CHARS_MAX).collect()
}

impl From<&Finding> for common::Finding {
    fn from(f: &Finding) -> common::Finding {
        let repair = match f.repair {
            Repair::Impossible => common::Repair::Impossible,
            Repair::Possible => common::Repair::Possible,
            Repair::Done => common::Repair::Done,
        };
        let kind = FindingKind::ALL.iter().position(|k| *k == f.kind).map_or(0, |i| i as u32 + 1);
        common::Finding {
            kind,
            repair: repair.into(),
            fs_id: f.fs,
            fid: f.fid.map(Into::into),
            component: f.component,
            stripe: f.stripe,
            chunk: f.chunk,
            segment: f.segment,
            what: cut(&f.what),
        }
    }
}

impl TryFrom<common::Finding> for Finding {
    type Error = FsError;
    fn try_from(w: common::Finding) -> FsResult<Finding> {
        let kind = (w.kind as usize).checked_sub(1).and_then(|i| FindingKind::ALL.get(i));
        let repair = match common::Repair::try_from(w.repair) {
            Ok(common::Repair::Impossible) => Repair::Impossible,
            Ok(common::Repair::Possible) => Repair::Possible,
            Ok(common::Repair::Done) => Repair::Done,
            Err(_) => return Err(bad("repair", format_args!("{} is unknown", w.repair))),
        };
        Ok(Finding {
            kind: *kind.ok_or_else(|| bad("kind", format_args!("{} is unknown", w.kind)))?,
            repair,
            fs: w.fs_id,
            // What is damaged may be the name itself, so it need not be one that is handed out.
            fid: w.fid.map(|f| sateen_types::Fid { seq: f.seq, oid: f.oid, ver: f.ver }),
            component: w.component,
            stripe: w.stripe,
            chunk: w.chunk,
            segment: w.segment,
            what: cut(&w.what),
        })
    }
}

impl From<Tally> for common::FsckTally {
    fn from(t: Tally) -> common::FsckTally {
        let Tally { file_systems, objects, chunks, segments, bytes_verified, damage, notices, repaired, inodes, names } =
            t;
        common::FsckTally {
            file_systems,
            objects,
            chunks,
            segments,
            bytes_verified,
            damage,
            notices,
            repaired,
            inodes,
            names,
        }
    }
}

impl From<common::FsckTally> for Tally {
    fn from(w: common::FsckTally) -> Tally {
        let common::FsckTally {
            file_systems,
            objects,
            chunks,
            segments,
            bytes_verified,
            damage,
            notices,
            repaired,
            inodes,
            names,
        } = w;
        Tally { file_systems, objects, chunks, segments, bytes_verified, damage, notices, repaired, inodes, names }
    }
}

impl From<&FsckEvent> for common::FsckEvent {
    fn from(event: &FsckEvent) -> common::FsckEvent {
        use common::fsck_event::Event;
        let event = match event {
            FsckEvent::Finding(finding) => Event::Finding(finding.into()),
            FsckEvent::Progress(tally) => Event::Progress((*tally).into()),
            FsckEvent::Done(tally) => Event::Done((*tally).into()),
        };
        common::FsckEvent { event: Some(event) }
    }
}

impl TryFrom<common::FsckEvent> for FsckEvent {
    type Error = FsError;
    fn try_from(w: common::FsckEvent) -> FsResult<FsckEvent> {
        use common::fsck_event::Event;
        Ok(match required(w.event, "event")? {
            Event::Finding(finding) => FsckEvent::Finding(finding.try_into()?),
            Event::Progress(tally) => FsckEvent::Progress(tally.into()),
            Event::Done(tally) => FsckEvent::Done(tally.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::{ComponentId, Fid, FsId, ObjectId, StripeIndex};

    #[test]
    fn events_survive_the_wire_and_nonsense_is_refused() {
        let object = ObjectId { fs: FsId(3), fid: Fid::ROOT, component: ComponentId(1), stripe: StripeIndex(2) };
        for kind in FindingKind::ALL {
            let finding = Finding::new(kind, Repair::Possible, "x").of(&object).chunk(7).segment(9);
            for event in [FsckEvent::Finding(finding), FsckEvent::Done(Tally { chunks: 4, ..Tally::default() })] {
                assert_eq!(FsckEvent::try_from(common::FsckEvent::from(&event)).expect("own message"), event);
            }
        }
        assert!(FsckEvent::try_from(common::FsckEvent { event: None }).is_err());
        assert!(Finding::try_from(common::Finding::default()).is_err());
        assert!(Finding::try_from(common::Finding { kind: 1, repair: 77, ..Default::default() }).is_err());
    }
}
