//! The text format of Prometheus, version 0.0.4.

use std::fmt::Write;

/// A page of figures. Each family is begun once and then gets its samples.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    /// A number that only rises; its name ends with `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str) -> &mut Page {
        debug_assert!(name.ends_with("_total"), "{name} counts without saying so");
        self.family(name, help, "counter")
    }

    /// A number that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> &mut Page {
        self.family(name, help, "gauge")
    }

    fn family(&mut self, name: &'static str, help: &str, kind: &str) -> &mut Page {
        debug_assert!(!help.contains(['\n', '\\']), "{name}: help is one plain line");
        // Writing to a string does not fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.name = name;
        self
    }

    /// A value of the family that was begun last. Labels are few and bounded: never a path or a FID.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) -> &mut Page {
        self.text.push_str(self.name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{label}=\"{escaped}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
        self
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut page = Page::default();
        page.counter("a_total", "What a is.").sample(&[("ost", "1"), ("x", "q\"\\")], 7).sample(&[], 8);
        page.gauge("b_bytes", "What b is.").sample(&[], 9);
        assert_eq!(
            page.into_text(),
            "# HELP a_total What a is.\n# TYPE a_total counter\na_total{ost=\"1\",x=\"q\\\"\\\\\"} 7\na_total 8\n\
             # HELP b_bytes What b is.\n# TYPE b_bytes gauge\nb_bytes 9\n"
        );
    }
}
