//! What Lustre's HSM commands tell of a file.

use std::fmt;
use std::ops::BitOr;

use serde::{Deserialize, Serialize};

use super::RepositoryId;

/// Lustre's state bits of a file in an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HsmFlags(pub u32);

impl HsmFlags {
    /// The repository has an object of it.
    pub const EXISTS: HsmFlags = HsmFlags(0x1);
    /// Changed since the object was written or imported.
    pub const DIRTY: HsmFlags = HsmFlags(0x2);
    /// Some of its bytes are in the repository only.
    pub const RELEASED: HsmFlags = HsmFlags(0x4);
    /// The object is complete.
    pub const ARCHIVED: HsmFlags = HsmFlags(0x8);
    /// Never released.
    pub const NO_RELEASE: HsmFlags = HsmFlags(0x10);
    /// Never archived.
    pub const NO_ARCHIVE: HsmFlags = HsmFlags(0x20);
    /// The object is gone, or another one.
    pub const LOST: HsmFlags = HsmFlags(0x40);

    /// What the owner of a file decides about it.
    pub const RULES: HsmFlags = HsmFlags(0x10 | 0x20);
    /// What `lfs hsm_set` and `hsm_clear` can name.
    pub const NAMED: HsmFlags = HsmFlags(0x7b);

    /// Those of the bits that `other` has as well.
    #[must_use]
    pub fn only(self, other: HsmFlags) -> HsmFlags {
        HsmFlags(self.0 & other.0)
    }

    /// Whether all bits of `other` are set.
    pub fn has(self, other: HsmFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// With or without the bits of `other`.
    #[must_use]
    pub fn set(self, other: HsmFlags, on: bool) -> HsmFlags {
        HsmFlags(if on { self.0 | other.0 } else { self.0 & !other.0 })
    }

    /// The words of the bits that are set, in the order in which `lfs hsm_state` prints them.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        const WORDS: [(HsmFlags, &str); 7] = [
            (HsmFlags::RELEASED, "released"),
            (HsmFlags::EXISTS, "exists"),
            (HsmFlags::DIRTY, "dirty"),
            (HsmFlags::ARCHIVED, "archived"),
            (HsmFlags::NO_RELEASE, "never_release"),
            (HsmFlags::NO_ARCHIVE, "never_archive"),
            (HsmFlags::LOST, "lost_from_hsm"),
        ];
        WORDS.into_iter().filter(move |(bit, _)| self.has(*bit)).map(|(_, word)| word)
    }
}

impl BitOr for HsmFlags {
    type Output = HsmFlags;
    fn bitor(self, other: HsmFlags) -> HsmFlags {
        HsmFlags(self.0 | other.0)
    }
}

impl fmt::Display for HsmFlags {
    /// `(0x0000000d) released exists archived`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(0x{:08x})", self.0)?;
        self.words().try_for_each(|word| write!(f, " {word}"))
    }
}

/// What is being done with a file, Lustre's `hsm_user_action`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HsmAction {
    /// Nothing.
    #[default]
    None,
    /// Written to the repository.
    Archive,
    /// Loaded from it.
    Restore,
    /// Removed from it.
    Remove,
}

impl HsmAction {
    /// Lustre's number.
    pub fn wire(self) -> u32 {
        match self {
            HsmAction::None => 0,
            HsmAction::Archive => 10,
            HsmAction::Restore => 11,
            HsmAction::Remove => 12,
        }
    }

    /// Of Lustre's number; `None` for one that means nothing here.
    pub fn from_wire(number: u32) -> Option<HsmAction> {
        [HsmAction::None, HsmAction::Archive, HsmAction::Restore, HsmAction::Remove]
            .into_iter()
            .find(|action| action.wire() == number)
    }
}

impl fmt::Display for HsmAction {
    /// The word of `lfs hsm_action`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HsmAction::None => "NOOP",
            HsmAction::Archive => "ARCHIVE",
            HsmAction::Restore => "RESTORE",
            HsmAction::Remove => "REMOVE",
        })
    }
}

/// What can be asked of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HsmOperation {
    /// Load all of it in the background.
    Restore,
    /// Give up what the OSTs have of it.
    Release,
    /// Export it.
    Archive,
    /// Delete its object.
    Remove,
    /// What waits of the others is not done.
    Cancel,
    /// Change state bits.
    Flags {
        /// Set these.
        set: HsmFlags,
        /// Clear these.
        clear: HsmFlags,
    },
}

/// Everything that is known of a file and its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HsmState {
    /// State bits.
    pub flags: HsmFlags,
    /// What is to be done.
    pub action: HsmAction,
    /// A worker is at it.
    pub running: bool,
    /// The link it came from, if that still exists.
    pub repository: Option<RepositoryId>,
    /// Key of its object within the prefix.
    pub key: Vec<u8>,
    /// Bytes of the object that the OSTs have.
    pub loaded_bytes: u64,
    /// Bytes of the object.
    pub remote_bytes: u64,
}
