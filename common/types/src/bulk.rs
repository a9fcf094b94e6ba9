//! What the bulk path carries: parts of objects.

/// How a part's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As they are.
    Raw,
    /// One LZ4 block without a length prefix.
    Lz4,
}

/// One run of bytes of an object; its stored bytes stand in the payload, in the order of the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Offset in the object.
    pub offset: u64,
    /// Bytes when opened; at most one chunk, except for a hole.
    pub raw_len: u32,
    /// Bytes in the payload; 0 for a hole.
    pub stored_len: u32,
    /// How they are stored.
    pub codec: Codec,
    /// crc32c of the opened bytes.
    pub raw_crc32c: u32,
    /// crc32c of the stored bytes.
    pub stored_crc32c: u32,
    /// A whole chunk that is stored as sent and replaces what was there.
    pub sealed: bool,
    /// Nothing is stored here.
    pub hole: bool,
}

/// Space of a target, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Space {
    /// Size.
    pub total: u64,
    /// In use.
    pub used: u64,
    /// What may still be written.
    pub available: u64,
    /// Objects (OST) or inodes (MDT) stored.
    pub objects: u64,
}
