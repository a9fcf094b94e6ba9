//! What an object says about the file it was: user metadata with the names and formats of FSx, DataSync, Storage Gateway and
//! Transfer Family. Pure. Anybody who may write to the bucket may write anything here.

use http::HeaderName;
use sateen_types::Timestamp;

/// Octal `st_mode`: digits of the kind, then permissions.
pub const PERMISSIONS: &str = "file-permissions";
/// Decimal user number.
pub const OWNER: &str = "file-owner";
/// Decimal group number.
pub const GROUP: &str = "file-group";
/// Nanoseconds since 1970 with the suffix `ns`; without it milliseconds.
pub const ATIME: &str = "file-atime";
/// The same.
pub const MTIME: &str = "file-mtime";

/// Who wrote the object.
pub const USER_AGENT: &str = "user-agent";
/// Number of the assignment that stored the object, 16 hexadecimal digits.
pub const EXPORT: &str = "sateen-export";

/// Bits that give a program its owner's rights: never carried over.
const SET_IDS: u32 = 0o6000;
/// The bits of `st_mode` that tell the kind.
const KIND: u32 = 0o170_000;
/// Longest value that is looked at, in bytes.
const VALUE_BYTES_MAX: usize = 64;

/// How a store names user metadata in headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spelling {
    /// What all names begin with, in small letters.
    pub prefix: &'static str,
    /// What stands for `-`: not every store takes that.
    pub separator: char,
}

impl Spelling {
    /// The header of the metadata of this name, one of those above.
    pub fn name(&self, plain: &str) -> String {
        let mut name = String::with_capacity(self.prefix.len() + plain.len());
        name.push_str(self.prefix);
        name.extend(plain.chars().map(|c| if c == '-' { self.separator } else { c }));
        name
    }

    /// The same as a header.
    pub fn header(&self, plain: &'static str) -> HeaderName {
        // Prefix and names are letters, '-' and '_'.
        HeaderName::from_bytes(self.name(plain).as_bytes()).unwrap_or(HeaderName::from_static(plain))
    }

    /// Whether a header is one of user metadata.
    pub fn is_metadata(&self, header: &HeaderName) -> bool {
        header.as_str().starts_with(self.prefix)
    }
}

/// What kind of thing the permissions name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file, a directory, or nothing: then the key decides.
    Plain,
    /// A symbolic link: the object's bytes are its target.
    Symlink,
    /// A device, pipe or socket.
    Special,
}

/// What was said, as far as it could be read. What is missing or malformed is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Posix {
    /// `st_mode`, with the bits of the kind.
    pub mode: Option<u32>,
    /// User.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Time of the last access.
    pub atime: Option<Timestamp>,
    /// Time of the last change.
    pub mtime: Option<Timestamp>,
    /// Number of the assignment that stored it, if an export did.
    pub export: Option<u64>,
}

impl Posix {
    /// The kind that the mode names.
    pub fn kind(&self) -> Kind {
        match self.mode.unwrap_or(0) & KIND {
            0o120_000 => Kind::Symlink,
            0 | 0o100_000 | 0o040_000 => Kind::Plain,
            _ => Kind::Special,
        }
    }
}

/// Reads the metadata that `value` finds by their names.
pub fn parse<'a>(value: impl Fn(&str) -> Option<&'a [u8]>) -> Posix {
    let text = |name: &str| {
        let bytes = value(name).filter(|v| v.len() <= VALUE_BYTES_MAX)?;
        std::str::from_utf8(bytes).ok().map(str::trim)
    };
    Posix {
        mode: text(PERMISSIONS).and_then(octal),
        uid: text(OWNER).and_then(decimal),
        gid: text(GROUP).and_then(decimal),
        atime: text(ATIME).and_then(time),
        mtime: text(MTIME).and_then(time),
        export: text(EXPORT).and_then(hexadecimal),
    }
}

/// Names and values of the metadata that say this, for [`parse`] and for FSx.
pub fn metadata(posix: &Posix) -> Vec<(&'static str, String)> {
    let time = |time: Timestamp| {
        let ns = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        // Nobody reads more than 64 bits.
        i64::try_from(ns).ok().map(|ns| format!("{ns}ns"))
    };
    let values = [
        (PERMISSIONS, posix.mode.map(|mode| format!("{:07o}", mode & !SET_IDS))),
        (OWNER, posix.uid.map(|uid| uid.to_string())),
        (GROUP, posix.gid.map(|gid| gid.to_string())),
        (ATIME, posix.atime.and_then(time)),
        (MTIME, posix.mtime.and_then(time)),
        (EXPORT, posix.export.map(|number| format!("{number:016x}"))),
        (USER_AGENT, Some(format!("sateen/{}", env!("CARGO_PKG_VERSION")))),
    ];
    values.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Whether metadata of this header are written with every object that is exported, or left out on purpose.
pub fn is_ours(spelling: &Spelling, header: &HeaderName) -> bool {
    [PERMISSIONS, OWNER, GROUP, ATIME, MTIME, USER_AGENT, EXPORT]
        .iter()
        .any(|name| spelling.name(name) == header.as_str())
}

/// What FSx says of the kind of an object.
pub fn content_type(key: &[u8], posix: &Posix) -> &'static str {
    match posix.kind() {
        _ if key.ends_with(b"/") => "application/x-directory; charset=UTF-8",
        Kind::Symlink => "application/symlink; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(text, 16).ok())?
}

fn octal(text: &str) -> Option<u32> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| !text.starts_with(['+', '-']))?;
    (mode <= KIND | 0o7777).then_some(mode)
}

fn decimal(text: &str) -> Option<u32> {
    // The largest number means "leave it as it is" in chown(2).
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?.filter(|id| *id != u32::MAX)
}

fn time(text: &str) -> Option<Timestamp> {
    let (digits, units_per_second) = match text.strip_suffix("ns") {
        Some(digits) => (digits, 1_000_000_000),
        None => (text, 1000),
    };
    if digits.starts_with('+') {
        return None;
    }
    let count: i64 = digits.parse().ok()?;
    let rest = count.rem_euclid(units_per_second) * (1_000_000_000 / units_per_second);
    Some(Timestamp { seconds: count.div_euclid(units_per_second), nanos: u32::try_from(rest).ok()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Posix {
        parse(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_bytes()))
    }

    #[test]
    fn what_fsx_writes_is_read() {
        let posix = of(&[
            (PERMISSIONS, "0100664"),
            (OWNER, "1000"),
            (GROUP, "0"),
            (ATIME, "1595002920000000001ns"),
            (MTIME, "1595002920123"),
        ]);
        assert_eq!(posix.mode, Some(0o100664));
        assert_eq!((posix.uid, posix.gid), (Some(1000), Some(0)));
        assert_eq!(posix.atime, Some(Timestamp { seconds: 1_595_002_920, nanos: 1 }));
        assert_eq!(posix.mtime, Some(Timestamp { seconds: 1_595_002_920, nanos: 123_000_000 }));
        assert_eq!(posix.kind(), Kind::Plain);
        assert_eq!(of(&[(PERMISSIONS, "0120777")]).kind(), Kind::Symlink);
        assert_eq!(of(&[(PERMISSIONS, "0040755")]).kind(), Kind::Plain);
        for special in ["0020644", "0060644", "0010644", "0140644"] {
            assert_eq!(of(&[(PERMISSIONS, special)]).kind(), Kind::Special, "{special}");
        }
        assert_eq!(of(&[(MTIME, "-1ns")]).mtime, Some(Timestamp { seconds: -1, nanos: 999_999_999 }));
    }

    #[test]
    fn stores_spell_names_in_their_ways() {
        let amazon = Spelling { prefix: "x-amz-meta-", separator: '-' };
        let azure = Spelling { prefix: "x-ms-meta-", separator: '_' };
        assert_eq!(amazon.header(PERMISSIONS).as_str(), "x-amz-meta-file-permissions");
        assert_eq!(azure.header(EXPORT).as_str(), "x-ms-meta-sateen_export");
        let colour = HeaderName::from_static("x-ms-meta-colour");
        assert!(is_ours(&azure, &azure.header(MTIME)) && !is_ours(&azure, &colour) && azure.is_metadata(&colour));
        assert!(!amazon.is_metadata(&colour));
    }

    #[test]
    fn nothing_said_is_nothing() {
        assert_eq!(of(&[]), Posix::default());
        assert_eq!(of(&[("user-agent", "aws-fsx-lustre")]), Posix::default());
    }

    #[test]
    fn what_is_malformed_counts_as_not_said_and_spoils_nothing_else() {
        for bad in ["", "9", "0x1ff", "-1", "+7", "0777777777", "rwxr-xr-x", "٣", "0100664\u{0}"] {
            let posix = of(&[(PERMISSIONS, bad), (OWNER, "5")]);
            assert_eq!((posix.mode, posix.uid), (None, Some(5)), "{bad:?}");
        }
        for bad in ["", "root", "-1", "+1", "4294967295", "4294967296", "1.0", "1e3"] {
            assert_eq!(of(&[(OWNER, bad), (GROUP, bad)]), Posix::default(), "{bad:?}");
        }
        for bad in ["", "ns", "now", "1.5ns", "99999999999999999999ns", "+1ns", "1 ns"] {
            assert_eq!(of(&[(MTIME, bad)]), Posix::default(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_written_is_in_the_format_of_fsx() {
        let posix = Posix {
            mode: Some(0o106_755),
            uid: Some(1000),
            gid: Some(0),
            atime: None,
            mtime: Some(Timestamp { seconds: 1_595_002_920, nanos: 1 }),
            export: Some(0x2a),
        };
        let written = metadata(&posix);
        let get = |name: &str| written.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        assert_eq!(get(PERMISSIONS), Some("0100755"), "neither setuid nor setgid");
        assert_eq!((get(OWNER), get(GROUP), get(ATIME)), (Some("1000"), Some("0"), None));
        assert_eq!(get(MTIME), Some("1595002920000000001ns"));
        assert_eq!(get(EXPORT), Some("000000000000002a"));
        assert!(get(USER_AGENT).is_some_and(|who| who.starts_with("sateen/")));
    }

    #[test]
    fn only_a_number_of_sixteen_digits_is_one_of_an_export() {
        assert_eq!(of(&[(EXPORT, "00000000000000ff")]).export, Some(255));
        for bad in ["", "ff", "+0000000000000ff", "00000000000000fg", "000000000000000ff"] {
            assert_eq!(of(&[(EXPORT, bad)]).export, None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            mode in 0u32..=0o177_777,
            id in 0..u32::MAX,
            seconds in -9_000_000_000i64..9_000_000_000,
            nanos in 0u32..1_000_000_000,
            number: u64,
        ) {
            let time = Some(Timestamp { seconds, nanos });
            let posix =
                Posix { mode: Some(mode), uid: Some(id), gid: Some(id), atime: time, mtime: time, export: Some(number) };
            let written = metadata(&posix);
            let read = parse(|name| written.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_bytes()));
            prop_assert_eq!(read, Posix { mode: Some(mode & !SET_IDS), ..posix });
        }

        #[test]
        fn every_moment_is_read_as_it_was_written(ns in any::<i64>()) {
            let text = format!("{ns}ns");
            let time = of(&[(MTIME, &text)]).mtime.expect("a number");
            prop_assert_eq!(i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos), i128::from(ns));
            prop_assert!(time.nanos < 1_000_000_000);
        }

        #[test]
        fn every_mode_and_number_is_read_as_it_was_written(mode in 0u32..=0o177_777, id in 0..u32::MAX) {
            let (mode_text, id_text) = (format!("{mode:07o}"), id.to_string());
            let posix = of(&[(PERMISSIONS, &mode_text), (OWNER, &id_text), (GROUP, &id_text)]);
            prop_assert_eq!((posix.mode, posix.uid, posix.gid), (Some(mode), Some(id), Some(id)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let posix = parse(|_| Some(bytes.as_slice()));
            let _ = posix.kind();
        }
    }
}
