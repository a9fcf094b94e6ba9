//! Times as stores write them. Pure.

use jiff::fmt::rfc2822;
use sateen_types::Timestamp;

/// `2026-11-22T10:11:12.345Z`, of listings.
pub fn rfc3339(text: &str) -> Option<Timestamp> {
    from_jiff(text.parse().ok()?)
}

/// `Sun, 22 Nov 2026 10:11:12 GMT`, of HTTP headers.
pub fn http_date(text: &str) -> Option<Timestamp> {
    let zoned = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_zoned(text).ok()?;
    from_jiff(zoned.timestamp())
}

fn from_jiff(time: jiff::Timestamp) -> Option<Timestamp> {
    let (mut secs, mut nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        secs -= 1;
        nanos += 1_000_000_000;
    }
    Some(Timestamp { seconds: secs, nanos: u32::try_from(nanos).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_same_moment() {
        let listed = rfc3339("2026-11-22T10:11:12.000Z").expect("valid");
        assert_eq!(http_date("Sun, 22 Nov 2026 10:11:12 GMT"), Some(listed));
        assert_eq!(rfc3339("1969-12-31T23:59:59.5Z"), Some(Timestamp { seconds: -1, nanos: 500_000_000 }));
        for bad in ["", "yesterday", "2026-11-22", "2026-13-01T00:00:00Z"] {
            assert_eq!(rfc3339(bad), None, "{bad}");
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }
}
