//! Values as bytes: one version byte, then fields in a fixed order, integers little-endian, byte strings with a
//! 32-bit length before them. Reading checks every length and that nothing is left over.

use sateen_types::{Fid, FsCode, FsError, FsResult, Timestamp};

/// A value of a table.
pub trait Record: Sized {
    /// Name for error messages.
    const WHAT: &'static str;
    /// Newest version; readers know all up to it and refuse later ones.
    const VERSION: u8 = 1;

    /// Version this value is written in: the oldest that can say all of it.
    fn version(&self) -> u8 {
        Self::VERSION
    }
    /// Appends the fields.
    fn write(&self, out: &mut Writer);
    /// Reads the fields of [`Reader::version`] back; `None` for bytes no [`Record::write`] made.
    fn read(input: &mut Reader<'_>) -> Option<Self>;

    /// The stored form.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer(vec![self.version()]);
        self.write(&mut out);
        out.0
    }

    /// Inverse of [`Record::to_bytes`]; anything else is `Corrupt`.
    fn from_bytes(bytes: &[u8]) -> FsResult<Self> {
        let corrupt = |why: &str| {
            FsError::new(FsCode::Corrupt, format!("stored {} of {} bytes {why}", Self::WHAT, bytes.len()))
                .with_hint("the metadata is damaged or was written by a newer version")
        };
        let (version, body) = bytes.split_first().ok_or_else(|| corrupt("is empty"))?;
        if !(1..=Self::VERSION).contains(version) {
            return Err(corrupt(&format!("has version {version}, this server reads up to {}", Self::VERSION)));
        }
        let mut input = Reader { rest: body, version: *version };
        match Self::read(&mut input) {
            Some(value) if input.rest.is_empty() => Ok(value),
            Some(_) => Err(corrupt("has bytes left over")),
            None => Err(corrupt("is malformed")),
        }
    }
}

/// Collects fields.
pub struct Writer(Vec<u8>);

#[allow(missing_docs, reason = "one method per field type")]
impl Writer {
    pub fn u8(&mut self, n: u8) {
        self.0.push(n);
    }
    pub fn u16(&mut self, n: u16) {
        self.0.extend(n.to_le_bytes());
    }
    pub fn u32(&mut self, n: u32) {
        self.0.extend(n.to_le_bytes());
    }
    pub fn u64(&mut self, n: u64) {
        self.0.extend(n.to_le_bytes());
    }
    pub fn array16(&mut self, a: [u8; 16]) {
        self.0.extend(a);
    }
    pub fn bytes(&mut self, b: &[u8]) {
        self.u32(u32::try_from(b.len()).expect("values are bounded far below 4 GiB"));
        self.0.extend(b);
    }
    pub fn fid(&mut self, f: Fid) {
        self.array16(f.to_bytes());
    }
    pub fn time(&mut self, t: Timestamp) {
        self.u64(t.seconds as u64);
        self.u32(t.nanos);
    }
}

/// Hands out fields; `None` when the bytes end early.
pub struct Reader<'a> {
    rest: &'a [u8],
    version: u8,
}

#[allow(missing_docs, reason = "one method per field type")]
impl<'a> Reader<'a> {
    /// Version of the record that is read.
    pub fn version(&self) -> u8 {
        self.version
    }
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[b]| b)
    }
    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
    pub fn array16(&mut self) -> Option<[u8; 16]> {
        self.take()
    }
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }
    pub fn fid(&mut self) -> Option<Fid> {
        self.array16().map(Fid::from_bytes)
    }
    pub fn time(&mut self) -> Option<Timestamp> {
        let seconds = self.u64()? as i64;
        let nanos = self.u32()?;
        (nanos < 1_000_000_000).then_some(Timestamp { seconds, nanos })
    }
    pub fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
    /// A count of things of at least `each` bytes; `None` if so many cannot be there.
    pub fn count(&mut self, each: usize) -> Option<usize> {
        let n = self.u32()? as usize;
        (n.checked_mul(each)? <= self.rest.len()).then_some(n)
    }
}
