//! What was measured: medians, ratios to limits, the table, the JSON list, and the comparison with an earlier run.

use std::fmt::Write;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::catalogue::Case;

/// One line of the results; its fields are the interface that later runs and other programs read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Name of the case.
    pub case: String,
    /// Median of what was measured.
    pub value: f64,
    /// Unit of the value.
    pub unit: String,
    /// Name of the case that bounds this one; `null` for a limit.
    pub limit: Option<String>,
    /// `value` divided by the limit's; `null` for a limit, and if the limit could not be measured.
    pub ratio: Option<f64>,
    /// Ratio that must be reached; `null` where nothing was asked.
    #[serde(default)]
    pub floor: Option<f64>,
    /// Value that is enough whatever the ratio; `null` where there is none.
    #[serde(default)]
    pub enough: Option<f64>,
    /// How often it was measured.
    #[serde(default)]
    pub runs: usize,
}

impl Outcome {
    /// The median of `values` for `case`, related to its limit in `report`. There must be values.
    pub fn new(case: &Case, values: Vec<f64>, report: &Report) -> Outcome {
        let runs = values.len();
        let value = median(values);
        let limit = case.limit.and_then(|limit| report.get(limit)).map(|limit| limit.value);
        Outcome {
            case: case.name.to_owned(),
            value: rounded(value),
            unit: case.unit.to_string(),
            limit: case.limit.map(str::to_owned),
            ratio: limit.and_then(|limit| ratio(value, limit)),
            floor: case.floor,
            enough: case.enough,
            runs,
        }
    }

    /// Whether it reached less than it must.
    pub fn is_below_floor(&self) -> bool {
        let below = matches!((self.ratio, self.floor), (Some(ratio), Some(floor)) if ratio < floor);
        match self.enough {
            Some(enough) => self.value < enough && (below || self.floor.is_none()),
            None => below,
        }
    }

    /// Value, unit and ratio for people.
    pub fn line(&self) -> String {
        let ratio = match (&self.limit, self.ratio) {
            (Some(limit), Some(ratio)) => format!("{ratio:>8.3} of {limit}"),
            (Some(limit), None) => format!("{:>8} of {limit}", "?"),
            (None, _) => String::new(),
        };
        format!("{:>12} {:<8} {ratio}", shown(self.value), self.unit).trim_end().to_owned()
    }
}

/// The results of one run, limits first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Report {
    outcomes: Vec<Outcome>,
}

impl Report {
    /// Adds one line.
    pub fn add(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    /// The line of a case.
    pub fn get(&self, case: &str) -> Option<&Outcome> {
        self.outcomes.iter().find(|o| o.case == case)
    }

    /// Reads what [`Report::write`] wrote.
    pub fn read(path: &Path) -> anyhow::Result<Report> {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not a results file", path.display()))
    }

    /// Writes the JSON list, replacing the file at once, so that a reader never sees half of it.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let mut file = tempfile::Builder::new().permissions(public()).tempfile_in(dir)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.persist(path)?;
        Ok(())
    }

    /// A table for people, with the values of an earlier run and the change of the ratios (of the values for limits).
    /// `<` marks what is below its floor: of the ratio, or of the value where there is none of the ratio.
    pub fn table(&self, previous: Option<&Report>) -> String {
        let mut text =
            format!("{:<45} {:>12} {:<8} {:>8} {:>7}  {:<28}", "case", "value", "unit", "ratio", "floor", "limit");
        if previous.is_some() {
            let _ = write!(text, " {:>12} {:>8}", "before", "change");
        }
        for outcome in &self.outcomes {
            let ratio = outcome.ratio.map_or(String::new(), |ratio| format!("{ratio:.3}"));
            let below = if outcome.is_below_floor() { "<" } else { "" };
            let floor = outcome.floor.map(|floor| format!("{floor:.2}")).or(outcome.enough.map(shown));
            let floor = floor.map_or(String::new(), |floor| format!("{below} {floor}"));
            let limit = outcome.limit.as_deref().unwrap_or("");
            let (case, unit, value) = (&outcome.case, &outcome.unit, shown(outcome.value));
            let _ = write!(text, "\n{case:<45} {value:>12} {unit:<8} {ratio:>8} {floor:>7}  {limit:<28}");
            if let Some(before) = previous.and_then(|report| report.get(&outcome.case)) {
                let change = change(before, outcome).map_or(String::new(), |change| format!("{change:+.1}%"));
                let _ = write!(text, " {:>12} {change:>8}", shown(before.value));
            }
        }
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    /// Names of the cases that reached less than they must.
    pub fn below_floor(&self) -> Vec<&str> {
        self.outcomes.iter().filter(|o| o.is_below_floor()).map(|o| o.case.as_str()).collect()
    }
}

/// Change in percent: of the ratios if there are any, because they leave out that another machine, or the same one on
/// another day, is faster; else of the values.
fn change(before: &Outcome, now: &Outcome) -> Option<f64> {
    let same_limit = before.limit == now.limit;
    let (before, now) = match (before.ratio, now.ratio) {
        (Some(before), Some(now)) if same_limit => (before, now),
        _ => (before.value, now.value),
    };
    ratio(now, before).map(|r| (r - 1.0) * 100.0)
}

/// `value / limit`, rounded; none where it says nothing.
fn ratio(value: f64, limit: f64) -> Option<f64> {
    (limit > 0.0 && value.is_finite()).then(|| rounded(value / limit))
}

/// Middle value; of an even number the mean of the two in the middle. `values` must not be empty.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

/// Four significant digits: more would claim an accuracy that no run has.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// A value for people: thousands apart, fractions only where they matter.
fn shown(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn public() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    fn outcome(case: &str, value: f64, limit: Option<&str>, ratio: Option<f64>) -> Outcome {
        let limit = limit.map(str::to_owned);
        Outcome {
            case: case.into(),
            value,
            unit: "GB/s".into(),
            limit,
            ratio,
            floor: ratio.map(|_| 0.6),
            enough: None,
            runs: 3,
        }
    }

    #[test]
    fn the_median_is_the_middle_of_the_sorted_values() {
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 100.0]), 3.0);
    }

    #[test]
    fn a_ratio_relates_a_case_to_the_limit_of_the_same_run() {
        let case = catalogue::get("client.read.seq.random").expect("in the catalogue");
        let mut report = Report::default();
        assert_eq!(Outcome::new(case, vec![2.0], &report).ratio, None, "the limit was not measured");
        report.add(outcome("raw_tcp.read", 4.0, None, None));
        let got = Outcome::new(case, vec![2.0], &report);
        assert_eq!((got.limit.as_deref(), got.ratio), (Some("raw_tcp.read"), Some(0.5)));
        report.outcomes[0].value = 0.0;
        assert_eq!(Outcome::new(case, vec![2.0], &report).ratio, None, "nothing is divided by zero");
    }

    #[test]
    fn values_keep_four_significant_digits() {
        let cases = [(123456.0, 123500.0), (0.123456, 0.1235), (1.0, 1.0), (0.0, 0.0), (99999.0, 100000.0)];
        for (value, expected) in cases {
            assert!((rounded(value) - expected).abs() <= expected * 1e-9, "{value}: {}", rounded(value));
        }
        assert_eq!(rounded(f64::NAN), 0.0);
        assert_eq!(
            (shown(1234567.0).as_str(), shown(2.345).as_str(), shown(999.6).as_str()),
            ("1,234,567", "2.35", "1,000")
        );
    }

    #[test]
    fn results_survive_the_file_and_have_the_promised_fields() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a/results.json");
        let mut report = Report::default();
        report.add(outcome("raw_tcp.read", 4.0, None, None));
        report.add(outcome("client.read.seq.random", 2.0, Some("raw_tcp.read"), Some(0.5)));
        report.write(&path).expect("written");
        assert_eq!(Report::read(&path).expect("read"), report);
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("file")).expect("JSON");
        let expected = serde_json::json!([
            {"case": "raw_tcp.read", "value": 4.0, "unit": "GB/s", "limit": null, "ratio": null, "floor": null,
             "enough": null, "runs": 3},
            {"case": "client.read.seq.random", "value": 2.0, "unit": "GB/s", "limit": "raw_tcp.read", "ratio": 0.5,
             "floor": 0.6, "enough": null, "runs": 3},
        ]);
        assert_eq!(json, expected);
        // Of an older version.
        std::fs::write(&path, r#"[{"case": "a", "value": 1.0, "unit": "GB/s", "limit": null, "ratio": null}]"#)
            .expect("w");
        assert_eq!(Report::read(&path).expect("read").get("a").map(|o| (o.floor, o.runs)), Some((None, 0)));
    }

    #[test]
    fn what_is_below_its_floor_is_marked_and_named() {
        let mut report = Report::default();
        report.add(outcome("slow", 2.0, Some("l"), Some(0.599)));
        report.add(outcome("good", 2.0, Some("l"), Some(0.6)));
        report.add(outcome("l", 2.0, None, None));
        assert_eq!(report.below_floor(), ["slow"]);
        let table = report.table(None);
        let marked: Vec<&str> = table.lines().filter(|line| line.contains("< 0.60")).collect();
        assert!(marked.len() == 1 && marked[0].starts_with("slow"), "{table}");
    }

    #[test]
    fn a_value_that_is_enough_needs_no_ratio() {
        let with = |ratio, value| Outcome { enough: Some(100.0), ..outcome("c", value, Some("l"), ratio) };
        assert!(!with(Some(0.1), 100.0).is_below_floor(), "enough");
        assert!(!with(Some(0.7), 50.0).is_below_floor(), "the floor is reached");
        assert!(with(Some(0.1), 50.0).is_below_floor());
        assert!(with(None, 50.0).is_below_floor(), "there is no floor");
        assert!(!with(None, 100.0).is_below_floor());
    }

    #[test]
    fn a_comparison_prefers_ratios_to_values() {
        let before = outcome("c", 2.0, Some("l"), Some(0.5));
        assert_eq!(change(&before, &outcome("c", 4.0, Some("l"), Some(0.25))), Some(-50.0));
        assert_eq!(change(&before, &outcome("c", 4.0, Some("other"), Some(0.25))), Some(100.0));
        assert_eq!(change(&outcome("l", 2.0, None, None), &outcome("l", 3.0, None, None)), Some(50.0));
        assert_eq!(change(&outcome("l", 0.0, None, None), &outcome("l", 3.0, None, None)), None);
    }

    #[test]
    fn the_table_shows_the_earlier_run_beside_this_one() {
        let (mut now, mut before) = (Report::default(), Report::default());
        now.add(outcome("c", 3.0, Some("l"), Some(0.75)));
        now.add(outcome("new", 1.0, None, None));
        before.add(outcome("c", 2.0, Some("l"), Some(0.5)));
        let table = now.table(Some(&before));
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].ends_with("before   change"), "{table}");
        assert!(lines[1].contains("0.750") && lines[1].ends_with("2.00   +50.0%"), "{table}");
        assert_eq!(lines.len(), 3);
        assert!(!now.table(None).contains("before"));
    }
}
