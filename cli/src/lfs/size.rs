//! Sizes as `lfs` reads and prints them.

/// Reads a number with an optional base-2 suffix out of `kKmMgGtTpPeE`. A bare number below 4096 is KiB, as in
/// `lfs setstripe` (`-S 64` is 64 KiB).
pub fn stripe_bytes(text: &str) -> Option<u64> {
    let (number, suffix) = split(text)?;
    match suffix {
        None if number < 4096 => number.checked_mul(1024),
        None => Some(number),
        Some(unit) => number.checked_mul(unit),
    }
}

/// Reads a component's end: a size, or `-1` or `eof` for infinity.
pub fn component_end(text: &str) -> Option<u64> {
    match text {
        "-1" | "eof" | "EOF" => Some(u64::MAX),
        _ => stripe_bytes(text),
    }
}

/// Reads a size of `lfs find`: suffixes as above and `b` (512 bytes), `c` (bytes); bare numbers count 512 bytes.
/// Gives the number and its unit.
pub fn find_size(text: &str) -> Option<(u64, u64)> {
    if let Some(number) = text.strip_suffix('c') {
        return Some((decimal(number)?, 1));
    }
    if let Some(number) = text.strip_suffix('b') {
        return Some((decimal(number)?, 512));
    }
    let (number, suffix) = split(text)?;
    Some((number, suffix.unwrap_or(512)))
}

fn decimal(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn split(text: &str) -> Option<(u64, Option<u64>)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match &text[digits..] {
        "" => None,
        "k" | "K" => Some(1 << 10),
        "m" | "M" => Some(1 << 20),
        "g" | "G" => Some(1 << 30),
        "t" | "T" => Some(1 << 40),
        "p" | "P" => Some(1 << 50),
        "e" | "E" => Some(1 << 60),
        _ => return None,
    };
    Some((decimal(&text[..digits])?, unit))
}

/// `lfs df -h`: divided by `base` while larger, one decimal and a letter, unscaled numbers as they are.
pub fn human(bytes: u64, base: u64) -> String {
    let letters = if base == 1000 { ['k', 'M', 'G', 'T', 'P', 'E'] } else { ['K', 'M', 'G', 'T', 'P', 'E'] };
    let mut value = bytes as f64;
    let mut letter = None;
    for next in letters {
        if value < base as f64 {
            break;
        }
        value /= base as f64;
        letter = Some(next);
    }
    match letter {
        None => bytes.to_string(),
        Some(letter) => format!("{value:.1}{letter}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_small_numbers_are_kibibytes_in_setstripe() {
        for (text, bytes) in [
            ("64K", 65536),
            ("64", 65536),
            ("4096", 4096),
            ("1M", 1 << 20),
            ("4g", 4 << 30),
            ("65536", 65536),
            ("0", 0),
        ] {
            assert_eq!(stripe_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "K", "-1", "1.5M", "64KB", "99999999999999999999", "16E"] {
            assert_eq!(stripe_bytes(text), None, "{text}");
        }
        assert_eq!(component_end("-1"), Some(u64::MAX));
        assert_eq!(component_end("eof"), Some(u64::MAX));
        assert_eq!(component_end("100M"), Some(100 << 20));
    }

    #[test]
    fn sizes_of_find_have_a_unit() {
        assert_eq!(find_size("8"), Some((8, 512)));
        assert_eq!(find_size("8c"), Some((8, 1)));
        assert_eq!(find_size("1M"), Some((1, 1 << 20)));
        assert_eq!(find_size("x"), None);
    }

    #[test]
    fn human_numbers_have_one_decimal() {
        assert_eq!(human(1023, 1024), "1023");
        assert_eq!(human(1024, 1024), "1.0K");
        assert_eq!(human(320_618_496, 1024), "305.8M");
        assert_eq!(human(1_500_000, 1000), "1.5M");
    }
}
