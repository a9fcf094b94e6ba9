//! Tables as a check sees them: every row as bytes, also those that do not decode, page by page.

use std::collections::VecDeque;

use sateen_types::{Fid, FindingKind, FsResult};

use super::draft::Draft;
use super::{Broken, Facts, Remedy};
use crate::store::codec::Record;
use crate::store::{ReadTxn, Row, Table, keys};

/// Rows that are read at once. The longest are attributes of 64 KiB, so a page has at most 16 MiB.
pub const PAGE: usize = 256;
/// Bytes of a FID at the beginning of a key.
const FID_BYTES: usize = 16;

/// A value as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored<R> {
    /// There is none.
    Missing,
    /// There are bytes, which no version has written.
    Bad,
    /// There it is.
    Good(R),
}

impl<R: Record> Stored<R> {
    /// Of these bytes.
    pub fn of(bytes: Option<&[u8]>) -> Stored<R> {
        match bytes.map(R::from_bytes) {
            None => Stored::Missing,
            Some(Err(_)) => Stored::Bad,
            Some(Ok(value)) => Stored::Good(value),
        }
    }

    /// The value of a key.
    pub fn read(tx: &dyn ReadTxn, table: Table, key: &[u8]) -> FsResult<Stored<R>> {
        Ok(Stored::of(tx.get(table, key)?.as_deref()))
    }

    /// The value, if it decodes.
    pub fn good(self) -> Option<R> {
        if let Stored::Good(value) = self { Some(value) } else { None }
    }

    /// Whether there is nothing at all.
    pub fn is_missing(&self) -> bool {
        matches!(self, Stored::Missing)
    }
}

/// One table in the order of its keys.
pub struct Rows<'v> {
    view: &'v dyn ReadTxn,
    pace: &'v dyn Fn(u64) -> FsResult<()>,
    table: Table,
    prefix: Vec<u8>,
    page: VecDeque<Row>,
    after: Option<Vec<u8>>,
    ended: bool,
}

impl<'v> Rows<'v> {
    /// From its first row on.
    pub fn new(view: &'v dyn ReadTxn, pace: &'v dyn Fn(u64) -> FsResult<()>, table: Table) -> Rows<'v> {
        Rows { view, pace, table, prefix: Vec::new(), page: VecDeque::new(), after: None, ended: false }
    }

    /// Only those with this prefix.
    pub fn below(
        view: &'v dyn ReadTxn,
        pace: &'v dyn Fn(u64) -> FsResult<()>,
        table: Table,
        prefix: Vec<u8>,
    ) -> Rows<'v> {
        Rows { prefix, ..Rows::new(view, pace, table) }
    }

    /// Only those about one file.
    pub fn about(view: &'v dyn ReadTxn, table: Table, fid: Fid) -> Rows<'v> {
        Rows { prefix: keys::fid(fid), ..Rows::new(view, &|_| Ok(()), table) }
    }

    fn fill(&mut self) -> FsResult<()> {
        if self.page.is_empty() && !self.ended {
            self.page = self.view.scan(self.table, &self.prefix, self.after.as_deref(), PAGE)?.into();
            self.ended = self.page.len() < PAGE;
            self.after = self.page.back().map(|(key, _)| key.clone());
            (self.pace)(self.page.len() as u64)?;
        }
        Ok(())
    }

    /// The next row.
    pub fn next(&mut self) -> FsResult<Option<Row>> {
        self.fill()?;
        Ok(self.page.pop_front())
    }

    /// The next row if it belongs to `group`.
    pub fn take(&mut self, group: &[u8]) -> FsResult<Option<Row>> {
        self.fill()?;
        Ok(self.page.pop_front_if(|(key, _)| group_of(key) == group))
    }

    fn group(&mut self) -> FsResult<Option<&[u8]>> {
        self.fill()?;
        Ok(self.page.front().map(|(key, _)| group_of(key)))
    }
}

/// What brings rows of several tables together: the FID their keys begin with, or all of a key that is shorter.
fn group_of(key: &[u8]) -> &[u8] {
    &key[..key.len().min(FID_BYTES)]
}

/// The first group of which any of the tables has a row left.
pub fn first_group(tables: &mut [&mut Rows<'_>]) -> FsResult<Option<Vec<u8>>> {
    let mut first: Option<Vec<u8>> = None;
    for table in tables {
        if let Some(group) = table.group()?
            && first.as_deref().is_none_or(|first| group < first)
        {
            first = Some(group.to_vec());
        }
    }
    Ok(first)
}

/// See [`super::Check::unusable`].
pub fn unusable(
    tx: &dyn ReadTxn,
    facts: &Facts,
    table: Table,
    key: &[u8],
    why: &str,
    removable: bool,
) -> FsResult<Option<Broken>> {
    let Some(value) = tx.get(table, key)? else { return Ok(None) };
    let what = format!("a row of {} cannot be used: {why}; key {}, value {}", table.name(), hex(key), hex(&value));
    let remedy = if removable {
        let mut draft = Draft::new(tx);
        draft.tx().delete(table, key.to_vec());
        Remedy::Mend(draft.finish()?)
    } else {
        Remedy::Unknown
    };
    Ok(Some(facts.broken(FindingKind::Row, what, remedy)))
}

/// Bytes for a person, the first of them.
pub fn hex(bytes: &[u8]) -> String {
    const SHOWN: usize = 64;
    let mut text: String = bytes.iter().take(SHOWN).map(|b| format!("{b:02x}")).collect();
    if bytes.len() > SHOWN {
        text.push_str("...");
    }
    text
}
