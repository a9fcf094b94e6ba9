//! Events and status of a check, for people (80 columns, findings wrapped) and for scripts.

use std::io::IsTerminal;

use sateen_client::maintenance::ScrubStatus;
use sateen_types::{Finding, FsckEvent, Repair, Tally};
use serde_json::{Value, json};

use super::{Checked, Of};
use crate::table::{bytes, percent};

/// Width of the output.
const COLUMNS: usize = 80;
/// Findings kept for one JSON document; more are counted. The document says so.
const FINDINGS_MAX: usize = 100_000;
/// Damaged chunks shown by `--status`.
const DAMAGED_SHOWN: usize = 8;

/// Shows one check.
pub struct Show {
    target: String,
    of: Of,
    json: bool,
    terminal: bool,
    findings: Vec<Finding>,
}

impl Show {
    /// Of `target`.
    pub fn new(target: &str, of: Of, json: bool) -> Show {
        Show { target: target.to_owned(), of, json, terminal: std::io::stderr().is_terminal(), findings: Vec::new() }
    }

    /// Something was found, or done.
    pub fn event(&mut self, event: &FsckEvent) {
        match event {
            FsckEvent::Finding(finding) if self.json => {
                if self.findings.len() < FINDINGS_MAX {
                    self.findings.push(finding.clone());
                }
            }
            FsckEvent::Finding(finding) => say_text!("{}", finding_text(finding)),
            FsckEvent::Progress(tally) if self.terminal && !self.json => {
                crate::say::err(format_args!("\r{:<width$}\r", progress_text(self.of, tally), width = COLUMNS - 1));
            }
            FsckEvent::Progress(_) | FsckEvent::Done(_) => {}
        }
    }

    /// It is over.
    pub fn done(self, tally: &Tally) -> Checked {
        if !self.json {
            say_text!("{}", summary(&self.target, self.of, tally));
        }
        let json = json!({
            "target": self.target,
            "clean": tally.damage == tally.repaired,
            "tally": tally,
            "findings": self.findings,
            "findings_left_out": (tally.damage + tally.notices).saturating_sub(self.findings.len() as u64),
        });
        Checked { tally: *tally, json }
    }
}

fn progress_text(of: Of, tally: &Tally) -> String {
    format!("{}, {} found", amounts(of, tally), tally.damage)
}

fn amounts(of: Of, tally: &Tally) -> String {
    match of {
        Of::Ost => {
            let verified = bytes(tally.bytes_verified);
            format!(
                "{} objects, {} chunks, {} segments, {verified} verified",
                tally.objects, tally.chunks, tally.segments
            )
        }
        Of::Mdt => format!("{} inodes, {} names, {} objects", tally.inodes, tally.names, tally.objects),
    }
}

/// A finding in lines of at most 80 columns.
fn finding_text(finding: &Finding) -> String {
    let mark = match (finding.kind.is_notice(), finding.repair) {
        (_, Repair::Done) => "repaired",
        (true, _) => "notice",
        (false, Repair::Possible) => "repairable",
        (false, Repair::Impossible) => "damaged",
    };
    wrap(&format!("{mark} {finding}"))
}

/// Breaks at blanks; what follows is indented.
fn wrap(text: &str) -> String {
    let mut out = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        let chars = word.chars().count();
        if width > 0 && width + 1 + chars > COLUMNS {
            out.push_str("\n    ");
            width = 4;
        } else if width > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += chars;
    }
    out.push('\n');
    out
}

fn summary(target: &str, of: Of, tally: &Tally) -> String {
    let mut out = wrap(&format!("{target}: {} file systems, {}", tally.file_systems, amounts(of, tally)));
    let left = tally.damage - tally.repaired.min(tally.damage);
    match (left, tally.repaired) {
        (0, 0) => out.push_str("  clean\n"),
        (0, repaired) => out.push_str(&format!("  repaired {repaired}, clean now\n")),
        (left, repaired) => out.push_str(&format!("  DAMAGED: {left} findings, {repaired} repaired\n")),
    }
    out
}

/// What the scrub of one OST knows.
pub fn status_text(target: &str, s: &ScrubStatus) -> String {
    let last = match s.last_pass_ended.and_then(|t| jiff::Timestamp::from_second(i64::try_from(t).ok()?).ok()) {
        Some(time) => format!("the last ended {time}"),
        None => "none has ended yet".to_owned(),
    };
    let scrub = if s.enabled { "on" } else { "off" };
    let done = percent(s.bytes.min(s.bytes_stored), s.bytes_stored);
    let mut out = wrap(&format!(
        "{target}: scrub {scrub}, {} passes, {last}; this one {} of {} ({done}%)",
        s.passes,
        bytes(s.bytes),
        bytes(s.bytes_stored),
    ));
    if s.damaged_chunks == 0 {
        out.push_str("  no damage known\n");
    } else {
        out.push_str(&format!("  DAMAGED: {} chunks\n", s.damaged_chunks));
        s.damaged.iter().take(DAMAGED_SHOWN).for_each(|finding| out.push_str(&wrap(&format!("  {finding}"))));
        if s.damaged_chunks > DAMAGED_SHOWN as u64 {
            out.push_str("  and more (--json shows them)\n");
        }
    }
    out
}

/// For scripts.
pub fn status_json(target: &str, s: &ScrubStatus) -> Value {
    json!({
        "target": target,
        "clean": s.damaged_chunks == 0,
        "scrub": {
            "enabled": s.enabled,
            "passes": s.passes,
            "last_pass_ended": s.last_pass_ended,
            "bytes": s.bytes,
            "chunks": s.chunks,
            "bytes_stored": s.bytes_stored,
        },
        "damaged_chunks": s.damaged_chunks,
        "damaged": s.damaged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::{ComponentId, Fid, FindingKind, FsId, ObjectId, StripeIndex};

    fn finding() -> Finding {
        let fid = Fid { seq: u64::from(u32::MAX) + 0x2_0000_0000, oid: 0x1_ffff, ver: 0 };
        let object = ObjectId { fs: FsId(u32::MAX), fid, component: ComponentId(64), stripe: StripeIndex(1999) };
        let what =
            "131072 bytes at 1073610752 of segment 00000000000003ff have checksum 0xaabbccdd, the index says 0x0";
        Finding::new(FindingKind::SegmentMissing, Repair::Possible, what).of(&object).chunk(1 << 40).segment(1023)
    }

    #[test]
    fn everything_fits_80_columns_and_names_the_file() {
        let tally = Tally { objects: u64::MAX, chunks: u64::MAX, damage: u64::MAX, ..Tally::default() };
        let status = ScrubStatus {
            enabled: true,
            passes: 12_345,
            last_pass_ended: Some(1_800_000_000),
            bytes: 1 << 50,
            chunks: 1,
            bytes_stored: 1 << 51,
            damaged_chunks: 99,
            damaged: vec![finding(); 20],
        };
        let text = finding_text(&finding())
            + &summary("OST 8149", Of::Ost, &tally)
            + &summary("MDT", Of::Mdt, &tally)
            + &status_text("OST 8149", &status);
        assert!(text.contains("[0x2ffffffff:0x1ffff:0x0]") && text.contains("(50%)"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line:?}");
        }
    }

    #[test]
    fn a_clean_check_says_so_and_a_repaired_one_too() {
        assert!(summary("x", Of::Ost, &Tally::default()).ends_with("  clean\n"));
        let repaired = Tally { damage: 2, repaired: 2, ..Tally::default() };
        assert!(summary("x", Of::Ost, &repaired).ends_with("clean now\n"));
        let left = Tally { damage: 3, ..repaired };
        assert!(summary("x", Of::Ost, &left).contains("DAMAGED: 1 findings, 2 repaired"));
        assert_eq!(Show::new("x", Of::Ost, true).done(&left).json["clean"], false);
    }
}
