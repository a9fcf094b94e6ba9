//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

use sateen_types::{FsCode, FsError};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes. Read from an integer or from text such as `"64MiB"`, `"64M"` (both base 2) or `"4096"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = FsError;

    fn from_str(s: &str) -> Result<ByteSize, FsError> {
        let bad = || {
            let shown: String = s.chars().take(40).collect();
            FsError::new(FsCode::Invalid, format!("{shown:?} is not a size"))
                .with_hint("write for example 64MiB, 10G or 4096")
        };
        let text = s.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| bad())?;
        let shift = match text[digits..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            "e" | "eb" | "eib" => 60,
            _ => return Err(bad()),
        };
        number.checked_mul(1 << shift).map(ByteSize).ok_or_else(bad)
    }
}

impl fmt::Display for ByteSize {
    /// The shortest exact form: `64MiB`, `1000B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let steps = if self.0 == 0 { 0 } else { (self.0.trailing_zeros() / 10).min(6) };
        write!(f, "{}{}", self.0 >> (10 * steps), UNITS[steps as usize])
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size in bytes, such as 4096 or \"64MiB\"")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(n))
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<ByteSize, E> {
                u64::try_from(n).map(ByteSize).map_err(|_| E::custom(format!("{n} is not a size")))
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<ByteSize, E> {
                s.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn people_write_sizes_in_many_ways() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64MiB", 64 << 20), ("64m", 64 << 20), (" 1 GB ", 1 << 30), ("8E", 8 << 60)]
        {
            assert_eq!(text.parse::<ByteSize>().expect(text).0, bytes);
        }
        for text in ["", "M", "-1", "1.5G", "16E", "10 apples", "99999999999999999999"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn printed_sizes_parse_back(n in any::<u64>()) {
            prop_assert_eq!(ByteSize(n).to_string().parse(), Ok(ByteSize(n)));
        }
    }
}
