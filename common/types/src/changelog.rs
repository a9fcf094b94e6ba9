//! The changelog: what happened to names and files, for programs that follow a file system. Numbers, names and the form of a line
//! are Lustre's (`lfs changelog`); the protocol is `proto/sateen/mds/v1/changelog.proto`.

use std::fmt;
use std::str::FromStr;

use crate::attr::Timestamp;
use crate::ids::Fid;
use crate::name::Name;
use crate::status::{FsCode, FsError, FsResult};

/// Kinds of records, with Lustre's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "their names are Lustre's")]
pub enum ChangeType {
    Create = 1,
    Mkdir = 2,
    HardLink = 3,
    SoftLink = 4,
    Mknod = 5,
    Unlink = 6,
    Rmdir = 7,
    Rename = 8,
    Close = 11,
    Layout = 12,
    Truncate = 13,
    SetAttr = 14,
    Xattr = 15,
    Hsm = 16,
    Mtime = 17,
    Ctime = 18,
    Atime = 19,
}

impl ChangeType {
    /// Every kind.
    pub const ALL: [ChangeType; 17] = [
        ChangeType::Create,
        ChangeType::Mkdir,
        ChangeType::HardLink,
        ChangeType::SoftLink,
        ChangeType::Mknod,
        ChangeType::Unlink,
        ChangeType::Rmdir,
        ChangeType::Rename,
        ChangeType::Close,
        ChangeType::Layout,
        ChangeType::Truncate,
        ChangeType::SetAttr,
        ChangeType::Xattr,
        ChangeType::Hsm,
        ChangeType::Mtime,
        ChangeType::Ctime,
        ChangeType::Atime,
    ];

    /// Lustre's number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Of Lustre's number; `None` for one that is not recorded here.
    pub fn from_number(number: u32) -> Option<ChangeType> {
        ChangeType::ALL.into_iter().find(|kind| u32::from(kind.number()) == number)
    }

    /// Lustre's name.
    pub fn as_str(self) -> &'static str {
        match self {
            ChangeType::Create => "CREAT",
            ChangeType::Mkdir => "MKDIR",
            ChangeType::HardLink => "HLINK",
            ChangeType::SoftLink => "SLINK",
            ChangeType::Mknod => "MKNOD",
            ChangeType::Unlink => "UNLNK",
            ChangeType::Rmdir => "RMDIR",
            ChangeType::Rename => "RENME",
            ChangeType::Close => "CLOSE",
            ChangeType::Layout => "LYOUT",
            ChangeType::Truncate => "TRUNC",
            ChangeType::SetAttr => "SATTR",
            ChangeType::Xattr => "XATTR",
            ChangeType::Hsm => "HSM",
            ChangeType::Mtime => "MTIME",
            ChangeType::Ctime => "CTIME",
            ChangeType::Atime => "ATIME",
        }
    }
}

/// Which kinds a user wants: bit N for number N.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChangeMask(pub u32);

impl ChangeMask {
    /// All but ATIME.
    pub const USUAL: ChangeMask = ChangeMask(ChangeMask::ALL.0 & !(1 << ChangeType::Atime as u8));
    const ALL: ChangeMask = {
        let (mut bits, mut i) = (0, 0);
        while i < ChangeType::ALL.len() {
            bits |= 1 << ChangeType::ALL[i] as u8;
            i += 1;
        }
        ChangeMask(bits)
    };

    /// Whether it has this kind.
    pub fn has(self, kind: ChangeType) -> bool {
        self.0 & (1 << kind.number()) != 0
    }

    /// `None` if bits are set that stand for nothing.
    pub fn from_bits(bits: u32) -> Option<ChangeMask> {
        (bits & !ChangeMask::ALL.0 == 0).then_some(ChangeMask(bits))
    }
}

impl fmt::Debug for ChangeMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ChangeMask {
    /// `CREAT,MKDIR`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> =
            ChangeType::ALL.into_iter().filter(|kind| self.has(*kind)).map(ChangeType::as_str).collect();
        f.write_str(&names.join(","))
    }
}

impl FromStr for ChangeMask {
    type Err = FsError;
    /// Names joined by `,` or `+`; `-NAME` takes one away; beginning with a sign: of the usual ones. `ALL` is all.
    fn from_str(s: &str) -> FsResult<ChangeMask> {
        let mut bits = if s.starts_with(['+', '-']) { ChangeMask::USUAL.0 } else { 0 };
        let mut rest = s;
        while !rest.is_empty() {
            let remove = rest.starts_with('-');
            rest = rest.strip_prefix(['+', '-', ',']).unwrap_or(rest);
            let end = rest.find(['+', '-', ',']).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            let one = ChangeType::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(name));
            let these = match one {
                Some(kind) => 1 << kind.number(),
                None if name.eq_ignore_ascii_case("ALL") => ChangeMask::ALL.0,
                None => {
                    let shown: String = name.chars().take(40).collect();
                    return Err(FsError::new(FsCode::Invalid, format!("{shown:?} is no kind of change"))
                        .with_hint(format!("there are {}", ChangeMask::ALL)));
                }
            };
            bits = if remove { bits & !these } else { bits | these };
            rest = after;
        }
        Ok(ChangeMask(bits))
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedName {
    /// The directory.
    pub parent: Fid,
    /// The name in it.
    pub name: Name,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRecord {
    /// Rises by one with every record of the file system.
    pub index: u64,
    /// Kind.
    pub kind: ChangeType,
    /// When.
    pub time: Timestamp,
    /// UNLNK, RMDIR: 1 its last name went, 2 there is an archive copy. RENME: the same of what was replaced.
    pub flags: u16,
    /// The file; of RENME what was replaced: `None` if nothing was.
    pub target: Option<Fid>,
    /// Owner of the process that did it.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its name, where the change is one of names. Of RENME the new one.
    pub name: Option<ChangedName>,
    /// Of RENME what was moved, and the name it had.
    pub source: Option<(Fid, ChangedName)>,
    /// Of XATTR which.
    pub xattr: Option<Vec<u8>>,
}

impl ChangeRecord {
    /// Its last name went.
    pub const LAST_NAME: u16 = 1;
    /// There is an archive copy of what went.
    pub const ARCHIVED: u16 = 2;
}

/// Somebody who reads the changelog, and for whom it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeUser {
    /// Printed `clN`, or `clN-NAME`.
    pub id: u32,
    /// At most [`crate::limits::CHANGELOG_NAME_MAX`] characters; may be empty.
    pub name: String,
    /// Records up to this one it does not need any more.
    pub cleared: u64,
    /// When it registered or last cleared.
    pub seen: Timestamp,
    /// What is recorded for it.
    pub mask: ChangeMask,
}

impl ChangeUser {
    /// `cl1` or `cl1-NAME`.
    pub fn label(&self) -> String {
        if self.name.is_empty() { format!("cl{}", self.id) } else { format!("cl{}-{}", self.id, self.name) }
    }

    /// The number of `cl1` or `cl1-NAME`.
    pub fn parse_label(label: &str) -> Option<u32> {
        let number = label.strip_prefix("cl")?.split('-').next()?;
        number.parse().ok().filter(|id| *id > 0)
    }
}

/// Who reads the changelog, and how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changelog {
    /// Number of the newest record; 0: there never was one.
    pub index: u64,
    /// Number of the oldest that is kept; behind `index` if there is none.
    pub first: u64,
    /// In the order of their numbers.
    pub users: Vec<ChangeUser>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_as_in_lustre() {
        let mask = |s: &str| s.parse::<ChangeMask>().map(|m| m.0);
        let bit = |kind: ChangeType| 1u32 << kind.number();
        assert_eq!(mask("creat,MKDIR"), Ok(bit(ChangeType::Create) | bit(ChangeType::Mkdir)));
        assert_eq!(mask("creat+unlnk"), Ok(bit(ChangeType::Create) | bit(ChangeType::Unlink)));
        assert_eq!(mask("+atime"), Ok(ChangeMask::ALL.0));
        assert_eq!(mask("-creat-mkdir"), Ok(ChangeMask::USUAL.0 & !bit(ChangeType::Create) & !bit(ChangeType::Mkdir)));
        assert_eq!(mask("ALL-HSM"), Ok(ChangeMask::ALL.0 & !bit(ChangeType::Hsm)));
        mask("creat,nothing").expect_err("no kind");
        mask("creat,,mkdir").expect_err("an empty name");
        assert_eq!(ChangeMask(bit(ChangeType::Hsm) | bit(ChangeType::Create)).to_string(), "CREAT,HSM");
        assert_eq!(ChangeMask::from_bits(1), None);
        let again: ChangeMask = ChangeMask::USUAL.to_string().parse().expect("its own text");
        assert_eq!(again, ChangeMask::USUAL);
    }

    #[test]
    fn users_have_lustres_names() {
        assert_eq!(ChangeUser::parse_label("cl7"), Some(7));
        assert_eq!(ChangeUser::parse_label("cl7-robinhood"), Some(7));
        for bad in ["7", "cl", "cl0", "clx", "cl-1"] {
            assert_eq!(ChangeUser::parse_label(bad), None, "{bad}");
        }
    }
}
