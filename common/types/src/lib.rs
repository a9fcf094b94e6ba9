//! The vocabulary of Sateen: identifiers, names, layouts, status codes and limits.
//!
//! No I/O, no async, no wire types: everything here is a plain value that a test can build in one line. A parsed
//! type ([`Name`], [`FsName`], [`Layout`]) cannot hold an invalid value, so nothing behind it asks again.

pub mod acl;
pub mod attr;
pub mod bulk;
pub mod capability;
pub mod changelog;
pub mod fsck;
pub mod ids;
pub mod layout;
pub mod limits;
pub mod lock;
pub mod name;
pub mod op;
pub mod payload;
pub mod repository;
pub mod status;

pub use acl::Acl;
pub use attr::{Attr, Compression, Credential, FileType, Timestamp};
pub use bulk::{Codec, Part, Space};
pub use capability::{Capability, Grant, Recall, Unreported, Using};
pub use fsck::{Finding, FindingKind, FsckEvent, Repair, Tally};
pub use ids::{ClusterId, ComponentId, Fid, FsId, ObjectId, OstIndex, OstUuid, SessionId, StripeIndex, Verifier};
pub use layout::{Component, Extent, Layout, LayoutTemplate, ObjectOffset, Pattern, Slice, StripePattern};
pub use lock::{Lock, LockClass, LockMode, LockRange, LockSet, LockSpace, OwnedLock};
pub use name::{FsName, Name, PoolName, XattrName};
pub use payload::Payload;
pub use repository::{HsmFlags, Remote, Repository, RepositoryId, RepositorySettings};
pub use status::{FsCode, FsError, FsResult};
