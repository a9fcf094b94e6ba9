//! What `lfs df`, `lfs osts` and `lfs mdts` print. Pure, in Lustre 2.15's form.

use std::fmt::Write;

use super::size::human;

/// How numbers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// 1 KiB blocks.
    Blocks,
    /// `-h`: powers of 1024.
    Human,
    /// `-H`: powers of 1000.
    HumanDecimal,
}

/// One MDT or OST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `MDT` or `OST`.
    pub kind: &'static str,
    /// Its index.
    pub index: u16,
    /// Its numbers, or why there are none.
    pub usage: Result<Usage, String>,
    /// Letters shown after the mount, e.g. `S` for out of space.
    pub status: String,
}

/// Numbers of a target, bytes or inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Size.
    pub total: u64,
    /// In use.
    pub used: u64,
    /// Left for users.
    pub available: u64,
}

/// `scratch-OST001f_UUID`.
pub fn uuid(fs: &str, kind: &str, index: u16) -> String {
    format!("{fs}-{kind}{index:04x}_UUID")
}

/// The table of one mount. `inodes` says what the numbers are.
pub fn table(fs: &str, mount: &str, targets: &[Target], inodes: bool, units: Units) -> String {
    let mut out = String::new();
    let head = match (inodes, units) {
        (true, _) => ["Inodes", "IUsed", "IFree", "IUse%"],
        (false, Units::Blocks) => ["1K-blocks", "Used", "Available", "Use%"],
        (false, _) => ["bytes", "Used", "Available", "Use%"],
    };
    row(&mut out, "UUID", head.map(str::to_owned), "Mounted on");
    let mut sum = Usage::default();
    let summed = if targets.iter().any(|t| t.kind == "OST") && !inodes { "OST" } else { "MDT" };
    for t in targets {
        let name = uuid(fs, t.kind, t.index);
        match &t.usage {
            Err(why) => {
                let _ = writeln!(out, "{name:<20}: {why}");
            }
            Ok(usage) => {
                let place = format!("{mount}[{}:{}]{}", t.kind, t.index, t.status);
                row(&mut out, &name, numbers(*usage, inodes, units), &place);
                if t.kind == summed {
                    sum.total += usage.total;
                    sum.used += usage.used;
                    sum.available += usage.available;
                }
            }
        }
    }
    out.push('\n');
    row(&mut out, "filesystem_summary:", numbers(sum, inodes, units), mount);
    out.push('\n');
    out
}

fn row(out: &mut String, name: &str, [total, used, available, percent]: [String; 4], place: &str) {
    let _ = writeln!(out, "{name:<20} {total:>11} {used:>11} {available:>11} {percent:>4} {place}");
}

fn numbers(u: Usage, inodes: bool, units: Units) -> [String; 4] {
    let show = |n: u64| match (units, inodes) {
        (Units::Blocks, true) => n.to_string(),
        (Units::Blocks, false) => (n >> 10).to_string(),
        (Units::Human, _) => human(n, 1024),
        (Units::HumanDecimal, _) => human(n, 1000),
    };
    // Used of used + available, rounded up.
    let whole = u128::from(u.used) + u128::from(u.available);
    let percent = if whole == 0 { 0 } else { (u128::from(u.used) * 100).div_ceil(whole) };
    [show(u.total), show(u.used), show(u.available), format!("{percent}%")]
}

/// `lfs osts` (`OBDS:`) and `lfs mdts` (`MDTS:`): index, name, state.
pub fn targets(title: &str, fs: &str, kind: &str, states: &[(u16, bool)]) -> String {
    let mut out = format!("{title}:\n");
    for (index, active) in states {
        let _ = writeln!(out, "{index}: {} {}", uuid(fs, kind, *index), if *active { "ACTIVE" } else { "INACTIVE" });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(kind: &'static str, index: u16, kib: [u64; 3]) -> Target {
        let [total, used, available] = kib.map(|n| n << 10);
        Target { kind, index, usage: Ok(Usage { total, used, available }), status: String::new() }
    }

    #[test]
    fn the_table_looks_as_in_lustre() {
        let targets = [
            target("MDT", 0, [125_056, 1664, 112_156]),
            target("OST", 0, [313_104, 1400, 284_544]),
            target("OST", 1, [313_104, 1400, 284_544]),
        ];
        let want = "\
UUID                   1K-blocks        Used   Available Use% Mounted on
lustre-MDT0000_UUID       125056        1664      112156   2% /mnt/lustre[MDT:0]
lustre-OST0000_UUID       313104        1400      284544   1% /mnt/lustre[OST:0]
lustre-OST0001_UUID       313104        1400      284544   1% /mnt/lustre[OST:1]

filesystem_summary:       626208        2800      569088   1% /mnt/lustre

";
        assert_eq!(table("lustre", "/mnt/lustre", &targets, false, Units::Blocks), want);
    }

    #[test]
    fn human_numbers_and_unreachable_targets_have_their_form() {
        let mut down = target("OST", 31, [0; 3]);
        down.usage = Err("inactive device".to_owned());
        let text = table("l", "/m", &[target("OST", 0, [1 << 20, 512 << 10, 512 << 10]), down], false, Units::Human);
        assert!(text.starts_with("UUID                       bytes        Used   Available Use% Mounted on\n"));
        assert!(text.contains("l-OST0000_UUID              1.0G      512.0M      512.0M  50% /m[OST:0]\n"), "{text}");
        assert!(text.contains("l-OST001f_UUID      : inactive device\n"), "{text}");
    }

    #[test]
    fn inodes_are_summed_over_mdts() {
        let inode = |kind, used| Target {
            kind,
            index: 0,
            usage: Ok(Usage { total: 100, used, available: 100 - used }),
            status: String::new(),
        };
        let text = table("l", "/m", &[inode("MDT", 10), inode("OST", 50)], true, Units::Blocks);
        assert!(text.contains("filesystem_summary:          100          10          90  10% /m\n"), "{text}");
    }

    #[test]
    fn targets_are_listed_with_their_state() {
        let text = targets("OBDS", "lustre", "OST", &[(0, true), (31, false)]);
        assert_eq!(
            text,
            "OBDS:\n0: lustre-OST0000_UUID ACTIVE\n1f: x\n".replace("1f: x", "31: lustre-OST001f_UUID INACTIVE")
        );
    }
}
