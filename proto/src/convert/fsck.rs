//! Findings and progress of checks.

use sateen_types::{Finding, FindingKind, FsError, FsResult, FsckEvent, Repair, Tally};

use super::{bad, required};
use crate::oss;

/// Longest description that is sent or taken.
const WHAT_CHARS_MAX: usize = 1024;

fn cut(text: &str) -> String {
    text.chars().take(WHAT_CHARS_MAX).collect()
}

impl From<&Finding> for oss::Finding {
    fn from(f: &Finding) -> oss::Finding {
        let repair = match f.repair {
            Repair::Impossible => oss::Repair::Impossible,
            Repair::Possible => oss::Repair::Possible,
            Repair::Done => oss::Repair::Done,
        };
        let kind = FindingKind::ALL.iter().position(|k| *k == f.kind).map_or(0, |i| i as u32 + 1);
        oss::Finding {
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

impl TryFrom<oss::Finding> for Finding {
    type Error = FsError;
    fn try_from(w: oss::Finding) -> FsResult<Finding> {
        let kind = (w.kind as usize).checked_sub(1).and_then(|i| FindingKind::ALL.get(i));
        let repair = match oss::Repair::try_from(w.repair) {
            Ok(oss::Repair::Impossible) => Repair::Impossible,
            Ok(oss::Repair::Possible) => Repair::Possible,
            Ok(oss::Repair::Done) => Repair::Done,
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

impl From<Tally> for oss::FsckTally {
    fn from(t: Tally) -> oss::FsckTally {
        let Tally { file_systems, objects, chunks, segments, bytes_verified, damage, notices, repaired } = t;
        oss::FsckTally { file_systems, objects, chunks, segments, bytes_verified, damage, notices, repaired }
    }
}

impl From<oss::FsckTally> for Tally {
    fn from(w: oss::FsckTally) -> Tally {
        let oss::FsckTally { file_systems, objects, chunks, segments, bytes_verified, damage, notices, repaired } = w;
        Tally { file_systems, objects, chunks, segments, bytes_verified, damage, notices, repaired }
    }
}

impl From<&FsckEvent> for oss::FsckEvent {
    fn from(event: &FsckEvent) -> oss::FsckEvent {
        use oss::fsck_event::Event;
        let event = match event {
            FsckEvent::Finding(finding) => Event::Finding(finding.into()),
            FsckEvent::Progress(tally) => Event::Progress((*tally).into()),
            FsckEvent::Done(tally) => Event::Done((*tally).into()),
        };
        oss::FsckEvent { event: Some(event) }
    }
}

impl TryFrom<oss::FsckEvent> for FsckEvent {
    type Error = FsError;
    fn try_from(w: oss::FsckEvent) -> FsResult<FsckEvent> {
        use oss::fsck_event::Event;
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
                assert_eq!(FsckEvent::try_from(oss::FsckEvent::from(&event)).expect("own message"), event);
            }
        }
        assert!(FsckEvent::try_from(oss::FsckEvent { event: None }).is_err());
        assert!(Finding::try_from(oss::Finding::default()).is_err());
        assert!(Finding::try_from(oss::Finding { kind: 1, repair: 77, ..Default::default() }).is_err());
    }
}
