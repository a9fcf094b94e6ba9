//! Text tables and numbers for people.

use std::fmt::Write;

use sateen_types::Timestamp;

/// Which side a column is flush with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Columns two spaces apart, as wide as their widest cell, without trailing blanks.
pub fn render(head: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let cell = |row: &Vec<String>, i: usize| row.get(i).map_or(0, |c| c.chars().count());
    let widths: Vec<usize> = (0..head.len())
        .map(|i| rows.iter().map(|r| cell(r, i)).max().unwrap_or(0).max(head[i].0.chars().count()))
        .collect();
    let mut out = String::new();
    let titles: Vec<String> = head.iter().map(|(title, _)| (*title).to_owned()).collect();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for (i, text) in row.iter().enumerate().take(head.len()) {
            let width = widths[i];
            let _ = match head[i].1 {
                Align::Left => write!(line, "{text:<width$}  "),
                Align::Right => write!(line, "{text:>width$}  "),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `1.5 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// `3d 4h`, `5m 6s`, `7s`.
pub fn duration(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m {s}s"),
        (0, _, _) => format!("{h}h {m}m"),
        _ => format!("{d}d {h}h"),
    }
}

/// `2026-11-22T13:00:00Z`.
pub fn time(at: Timestamp) -> String {
    let nanos = i32::try_from(at.nanos).unwrap_or(0);
    jiff::Timestamp::new(at.seconds, nanos).map_or_else(|_| at.seconds.to_string(), |t| format!("{t:.0}"))
}

/// Used of total, rounded up, in percent.
pub fn percent(used: u64, total: u64) -> u64 {
    if total == 0 { 0 } else { (u128::from(used) * 100).div_ceil(u128::from(total)) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = render(
            &[("NAME", Align::Left), ("N", Align::Right)],
            &[vec!["a".into(), "100".into()], vec!["longer".into(), "1".into()]],
        );
        assert_eq!(text, "NAME      N\na       100\nlonger    1\n");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(duration(59), "59s");
        assert_eq!(duration(90_061), "1d 1h");
        assert_eq!(percent(1, 1000), 1);
        assert_eq!(percent(0, 0), 0);
    }
}
