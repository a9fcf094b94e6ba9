//! POSIX access control lists as Linux has them (POSIX.1e, draft 17): their form as extended attributes, how they relate
//! to the mode, who is allowed what, and what is inherited. Pure; the MDS decides with it, clients only carry the bytes.
//!
//! An access ACL never repeats the mode: its entries for the owner, the mask and others *are* the mode's three digits
//! ([`ExtendedAcl`] holds the rest), so chmod and ACL cannot disagree.

use crate::attr::Credential;
use crate::limits::ACL_ENTRIES_MAX;
use crate::status::{FsCode, FsError, FsResult};

/// Extended attribute that stands for the access ACL.
pub const ACCESS_XATTR: &[u8] = b"system.posix_acl_access";
/// Extended attribute that stands for a directory's default ACL.
pub const DEFAULT_XATTR: &[u8] = b"system.posix_acl_default";

/// Version of the extended attributes' form, which starts with it: 32 bits, little-endian.
const XATTR_VERSION: u32 = 2;
/// Each entry: tag and permissions (16 bits each), id (32 bits), little-endian.
const ENTRY_BYTES: usize = 8;
/// Id of entries that name nobody; nobody has it.
const NO_ID: u32 = u32::MAX;

const TAG_OWNER: u16 = 0x01;
const TAG_USER: u16 = 0x02;
const TAG_GROUP_OBJ: u16 = 0x04;
const TAG_GROUP: u16 = 0x08;
const TAG_MASK: u16 = 0x10;
const TAG_OTHER: u16 = 0x20;

/// What a user or group that is named gets. Permissions are one octal digit of a mode, here and everywhere below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// User or group.
    pub id: u32,
    /// Permissions.
    pub perm: u32,
}

/// A whole list: what the extended attributes hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// Permissions of the owner.
    pub owner: u32,
    /// Permissions of the owning group.
    pub group: u32,
    /// Permissions of others.
    pub other: u32,
    /// Bounds the permissions of the group and of everybody who is named. Always there with `users` or `groups`.
    pub mask: Option<u32>,
    /// Ascending, each once.
    pub users: Vec<Named>,
    /// Ascending, each once.
    pub groups: Vec<Named>,
}

/// What an access ACL says beyond the mode. Its owner, mask and others are the three digits of the mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtendedAcl {
    /// Permissions of the owning group, within the mask.
    pub group: u32,
    /// Ascending, each once.
    pub users: Vec<Named>,
    /// Ascending, each once.
    pub groups: Vec<Named>,
}

fn invalid(why: impl Into<String>) -> FsError {
    FsError::new(FsCode::Invalid, format!("not an ACL: {}", why.into()))
}

impl Acl {
    /// Reads the value of [`ACCESS_XATTR`] or [`DEFAULT_XATTR`]. `None` for nothing and for a list without entries, which mean
    /// "no ACL".
    /// Entries come in the order owner, users, group, groups, mask, others, as Linux demands.
    pub fn parse(value: &[u8]) -> FsResult<Option<Acl>> {
        if value.is_empty() {
            return Ok(None);
        }
        let (version, entries) =
            value.split_first_chunk().ok_or_else(|| invalid(format!("{} bytes have no version", value.len())))?;
        let version = u32::from_le_bytes(*version);
        if version != XATTR_VERSION {
            return Err(FsError::new(FsCode::NotSupported, format!("ACL version {version}, not {XATTR_VERSION}")));
        }
        if entries.len() % ENTRY_BYTES != 0 {
            return Err(invalid(format!("{} bytes of entries of {ENTRY_BYTES} bytes", entries.len())));
        }
        if entries.is_empty() {
            return Ok(None);
        }
        if entries.len() / ENTRY_BYTES > ACL_ENTRIES_MAX {
            return Err(FsError::new(
                FsCode::TooBig,
                format!("{} ACL entries, at most {ACL_ENTRIES_MAX} are allowed", entries.len() / ENTRY_BYTES),
            )
            .with_hint("name groups instead of users"));
        }
        let (mut owner, mut group, mut mask, mut other) = (None, None, None, None);
        let (mut users, mut groups) = (Vec::new(), Vec::new());
        let mut last_tag = 0;
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let perm = u32::from(u16::from_le_bytes([entry[2], entry[3]]));
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            if perm > 7 {
                return Err(invalid(format!("permissions {perm:#o}")));
            }
            // The tags' numbers rise in the order that is demanded; only users and groups may repeat.
            let repeats = tag == last_tag && matches!(tag, TAG_USER | TAG_GROUP);
            if tag <= last_tag && !repeats {
                return Err(invalid(format!("an entry of kind {tag:#x} after one of kind {last_tag:#x}")));
            }
            last_tag = tag;
            match tag {
                TAG_OWNER => owner = Some(perm),
                TAG_GROUP_OBJ => group = Some(perm),
                TAG_MASK => mask = Some(perm),
                TAG_OTHER => other = Some(perm),
                TAG_USER | TAG_GROUP if id == NO_ID => return Err(invalid("an entry names nobody")),
                TAG_USER => users.push(Named { id, perm }),
                TAG_GROUP => groups.push(Named { id, perm }),
                _ => return Err(invalid(format!("an entry of kind {tag:#x}"))),
            }
        }
        let (Some(owner), Some(group), Some(other)) = (owner, group, other) else {
            return Err(invalid("owner, group or others are missing"));
        };
        if mask.is_none() && !(users.is_empty() && groups.is_empty()) {
            return Err(invalid("users or groups are named, but there is no mask"));
        }
        for named in [&mut users, &mut groups] {
            named.sort_unstable();
            if let Some(twice) = named.windows(2).find(|w| w[0].id == w[1].id) {
                return Err(invalid(format!("{} is named twice", twice[0].id)));
            }
        }
        Ok(Some(Acl { owner, group, other, mask, users, groups }))
    }

    /// Inverse of [`Acl::parse`].
    pub fn to_xattr(&self) -> Vec<u8> {
        let mut out = XATTR_VERSION.to_le_bytes().to_vec();
        let mut put = |tag: u16, perm: u32, id: u32| {
            out.extend(tag.to_le_bytes());
            out.extend((perm as u16).to_le_bytes());
            out.extend(id.to_le_bytes());
        };
        put(TAG_OWNER, self.owner, NO_ID);
        self.users.iter().for_each(|u| put(TAG_USER, u.perm, u.id));
        put(TAG_GROUP_OBJ, self.group, NO_ID);
        self.groups.iter().for_each(|g| put(TAG_GROUP, g.perm, g.id));
        if let Some(mask) = self.mask {
            put(TAG_MASK, mask, NO_ID);
        }
        put(TAG_OTHER, self.other, NO_ID);
        out
    }

    /// As an access ACL: the nine bits of the mode, and what they cannot say. A list without mask says nothing more.
    pub fn split(self) -> (u32, Option<ExtendedAcl>) {
        let Acl { owner, group, other, mask, users, groups } = self;
        let bits = owner << 6 | mask.unwrap_or(group) << 3 | other;
        (bits, mask.map(|_| ExtendedAcl { group, users, groups }))
    }

    /// Mode and access ACL of something made with `mode` in a directory whose default ACL this is. Neither gives more than
    /// the other; the umask has no say.
    pub fn inherit(&self, mode: u32) -> (u32, Option<ExtendedAcl>) {
        let (bits, extended) = self.clone().split();
        (mode & (bits | !0o777), extended)
    }
}

impl ExtendedAcl {
    /// The whole list of a file with `mode`.
    pub fn with_mode(&self, mode: u32) -> Acl {
        Acl {
            owner: mode >> 6 & 7,
            group: self.group,
            other: mode & 7,
            mask: Some(mode >> 3 & 7),
            users: self.users.clone(),
            groups: self.groups.clone(),
        }
    }

    /// Whether `who`, who is neither the owner nor root, gets all of `wanted` on a file of `mode` and group `gid`: as a
    /// named user, else by any one group they are in, else as one of the others.
    pub fn allows(&self, who: &Credential, mode: u32, gid: u32, wanted: u32) -> bool {
        let mask = mode >> 3 & 7;
        let gives = |perm: u32| perm & mask & wanted == wanted;
        if let Ok(at) = self.users.binary_search_by_key(&who.uid, |u| u.id) {
            return gives(self.users[at].perm);
        }
        let owning = who.in_group(gid).then_some(self.group);
        let named = self.groups.iter().filter(|g| who.in_group(g.id)).map(|g| g.perm);
        let mut mine = owning.into_iter().chain(named).peekable();
        if mine.peek().is_some() {
            return mine.any(gives);
        }
        mode & wanted == wanted
    }
}

#[cfg(test)]
mod tests;
