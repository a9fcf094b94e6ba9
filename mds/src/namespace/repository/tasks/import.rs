//! Imports of tasks: which links and prefixes a path means, and what an import that is limited to a prefix takes and counts.

use sateen_types::limits::KEY_BYTES_MAX;
use sateen_types::repository::{
    ImportState, ImportStatus, KeyRange, LinkPath, RepositoryState, RepositoryUrl, Skipped, TaskId, TaskSpec,
};
use sateen_types::{FsCode, FsError, FsResult, RepositoryId};

use super::{Told, cut, find, note_failed, put, working};
use crate::command::Inputs;
use crate::namespace::repository::links;
use crate::store::codec::Record;
use crate::store::keys::tasks as keys;
use crate::store::records::{ScopeRecord, Sync, TodoRecord};
use crate::store::{ReadTxn, Table, Txn};

/// What an import is limited to.
pub type Scope = ScopeRecord;

impl ScopeRecord {
    /// Whether an object is in it.
    pub fn takes(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix.as_slice())
            .is_some_and(|rest| !self.whole || self.prefix.is_empty() || rest.is_empty() || rest[0] == b'/')
    }

    /// Whether no key from this one on is in it.
    pub fn is_behind(&self, key: &[u8]) -> bool {
        key > self.prefix.as_slice() && !key.starts_with(&self.prefix)
    }
}

/// Keys behind this one begin with the prefix, or are few; all that begin with it are behind. Text, as the prefix is.
fn start_after(prefix: &[u8]) -> Vec<u8> {
    let Some((text, last)) = std::str::from_utf8(prefix).ok().and_then(|t| t.chars().next_back().map(|c| (t, c)))
    else {
        return Vec::new();
    };
    let head = &text[..text.len() - last.len_utf8()];
    let Some(before) = (1..u32::from(last)).rev().find_map(char::from_u32) else { return head.as_bytes().to_vec() };
    let mut after = format!("{head}{before}");
    if after.len() + char::MAX.len_utf8() <= KEY_BYTES_MAX {
        after.push(char::MAX);
    }
    after.into_bytes()
}

/// What has all keys that begin with the prefix. Its bounds are no longer than keys.
fn range_of(prefix: &[u8]) -> KeyRange {
    if prefix.len() >= KEY_BYTES_MAX {
        return KeyRange::ALL;
    }
    KeyRange { after: start_after(prefix), end: end_behind(prefix).filter(|end| end.len() <= KEY_BYTES_MAX) }
}

/// Keys that begin with the prefix are before this one; `None`: no key is behind them. Text, as the prefix is.
fn end_behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(prefix).ok()?;
    let last = text.chars().next_back()?;
    let behind = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32)?;
    Some(format!("{}{behind}", &text[..text.len() - last.len_utf8()]).into_bytes())
}

/// What lies between a directory and what is below it; `None`: it is not below it.
pub(super) fn below(dir: &LinkPath, path: &LinkPath) -> Option<String> {
    if dir.as_str() == "/" {
        return Some(path.as_str()[1..].to_owned());
    }
    let rest = path.as_str().strip_prefix(dir.as_str())?;
    match rest.strip_prefix('/') {
        Some(rest) => Some(rest.to_owned()),
        None => rest.is_empty().then(String::new),
    }
}

/// The links, and what of them, that a path or URL means. `NotFound`: none.
pub(super) fn targets(tx: &dyn ReadTxn, path: &str) -> FsResult<Vec<TodoRecord>> {
    let mut found = Vec::new();
    for (link, record) in links::all(tx)? {
        let settings = record.settings;
        let part = if TaskSpec::is_url(path) {
            part_of_url(&settings.url, path).map(|prefix| (prefix, false))
        } else {
            let wanted: LinkPath = path.parse()?;
            match below(&settings.path, &wanted) {
                Some(prefix) => Some((prefix, true)),
                None => below(&wanted, &settings.path).map(|_| (String::new(), true)),
            }
        };
        if let Some((prefix, whole)) = part {
            found.push(TodoRecord::Import { link, prefix: prefix.into_bytes(), whole, run: 0 });
        }
    }
    if found.is_empty() {
        return Err(FsError::new(FsCode::NotFound, "nothing there is linked to a repository"));
    }
    Ok(found)
}

/// What keys of a link start with that begin with a URL.
fn part_of_url(link: &RepositoryUrl, url: &str) -> Option<String> {
    // A bucket is a whole name.
    let (scheme, rest) = url.split_once("://")?;
    let url = if rest.contains('/') { url.to_owned() } else { format!("{scheme}://{rest}/") };
    let link = link.to_string();
    match url.strip_prefix(&link) {
        Some(prefix) => Some(prefix.to_owned()),
        None => link.starts_with(&url).then(String::new),
    }
}

/// What the import `run` of a link is limited to; `None`: nothing.
pub fn scope(tx: &dyn ReadTxn, id: RepositoryId, run: u64) -> FsResult<Option<Scope>> {
    let row = tx.get(Table::Tasks, &keys::scope(id))?.map(|v| ScopeRecord::from_bytes(&v)).transpose()?;
    Ok(row.filter(|scope| scope.run == run))
}

/// Looks how far the next import is: begins it, or ends it.
pub(super) fn step(tx: &mut dyn Txn, id: TaskId, inputs: &Inputs) -> FsResult<Told> {
    let Some(mut record) = working(tx, id)? else { return Ok(Told::default()) };
    let Some((row, value)) = tx.scan(Table::Tasks, &keys::todo(id), None, 1)?.pop() else { return Ok(Told::default()) };
    let TodoRecord::Import { link, prefix, whole, run } = TodoRecord::from_bytes(&value)? else {
        return Err(FsError::new(FsCode::Internal, format!("{id} imports and has something else to do")));
    };
    let shown = String::from_utf8_lossy(&prefix).into_owned();
    let mut end = |tx: &mut dyn Txn, why: Option<String>| {
        tx.delete(Table::Tasks, row.clone());
        tx.delete(Table::Tasks, keys::scope(link));
        if let (Some(why), true) = (why, record.message.is_empty()) {
            record.message = cut(why);
        }
        put(tx, id, record.clone(), inputs);
        Ok(Told::default())
    };
    let Some(mut linked) = links::find(tx, link)?.filter(|l| l.state != RepositoryState::Deleting) else {
        return end(tx, Some(format!("{link} is not linked any more")));
    };
    let busy = matches!(linked.import.state, ImportState::Queued | ImportState::Running);
    if run > 0 {
        return match linked.import.state {
            _ if linked.run != run => end(tx, None),
            ImportState::Queued | ImportState::Running => Ok(Told { wait: true, ..Told::default() }),
            ImportState::Failed => end(tx, Some(format!("{link}: {}", linked.import.message))),
            ImportState::None | ImportState::Done if linked.import.objects == 0 && !prefix.is_empty() => {
                end(tx, Some(format!("{link} has nothing under {shown:?}")))
            }
            ImportState::None | ImportState::Done => end(tx, None),
        };
    }
    if linked.state == RepositoryState::Misconfigured {
        return end(tx, Some(format!("{link} is {}: {}", linked.state, linked.message)));
    }
    if busy || linked.state != RepositoryState::Available {
        return Ok(Told { wait: true, ..Told::default() });
    }
    links::start_import(tx, link, Sync::No, inputs)?;
    linked = links::get(tx, link)?;
    linked.left = vec![range_of(&prefix)];
    links::put(tx, link, &linked);
    let scope = ScopeRecord { task: id, run: linked.run, prefix: prefix.clone(), whole };
    tx.put(Table::Tasks, keys::scope(link), scope.to_bytes());
    let todo = TodoRecord::Import { link, prefix, whole, run: linked.run };
    tx.put(Table::Tasks, row, todo.to_bytes());
    Ok(Told { link: Some(link), wait: true, ..Told::default() })
}

/// A page of a limited import was taken: `before` and `after` are the counts, `skipped` what it left out.
pub fn imported(
    tx: &mut dyn Txn,
    (link, scope): (RepositoryId, &Scope),
    (before, after): (&ImportStatus, &ImportStatus),
    skipped: &[Skipped],
    inputs: &Inputs,
) -> FsResult<()> {
    let Some(mut record) = find(tx, scope.task)?.filter(|r| !r.state.is_over()) else { return Ok(()) };
    let objects = after.objects.saturating_sub(before.objects);
    record.counts.total += objects;
    record.counts.succeeded += objects.saturating_sub(skipped.len() as u64);
    record.counts.bytes = record.counts.bytes.saturating_add(after.bytes.saturating_sub(before.bytes));
    let path = links::find(tx, link)?.map(|l| l.settings.path.to_string()).unwrap_or_default();
    let dir = path.trim_matches('/');
    for one in skipped {
        let path = if dir.is_empty() { one.key.clone() } else { [dir.as_bytes(), b"/", &one.key].concat() };
        let code = one.code.replacen("S3Import", "S3", 1);
        note_failed(tx, scope.task, &mut record, path, &code);
    }
    put(tx, scope.task, record, inputs);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope_of(prefix: &str, whole: bool) -> ScopeRecord {
        ScopeRecord { task: TaskId(1), run: 1, prefix: prefix.as_bytes().to_vec(), whole }
    }

    #[test]
    fn a_path_takes_the_name_and_what_is_below_it_and_a_prefix_all_that_begin_so() {
        let path = scope_of("a/b", true);
        assert!(path.takes(b"a/b") && path.takes(b"a/b/") && path.takes(b"a/b/c"));
        assert!(!path.takes(b"a/bc") && !path.takes(b"a/b-c/d") && !path.takes(b"a"));
        assert!(scope_of("a/b", false).takes(b"a/bc"));
        assert!(scope_of("", true).takes(b"anything"));
        assert!(path.is_behind(b"a/c") && !path.is_behind(b"a/b-c") && !path.is_behind(b"a"));
        assert!(!scope_of("", true).is_behind(b"anything"));
    }

    #[test]
    fn paths_and_urls_name_parts_of_links() {
        let path = |text: &str| text.parse::<LinkPath>().expect("a path");
        assert_eq!(below(&path("/a"), &path("/a/b/c")).as_deref(), Some("b/c"));
        assert_eq!(below(&path("/a"), &path("/a")).as_deref(), Some(""));
        assert_eq!(below(&path("/a"), &path("/ab")), None);
        assert_eq!(below(&path("/"), &path("/x/y")).as_deref(), Some("x/y"));
        assert_eq!(below(&path("/"), &path("/")).as_deref(), Some(""));
        let link: RepositoryUrl = "s3://bucket/train".parse().expect("a URL");
        let part = |url: &str| part_of_url(&link, url);
        assert_eq!(part("s3://bucket/train/x/y").as_deref(), Some("x/y"));
        assert_eq!(part("s3://bucket/train/").as_deref(), Some(""));
        assert_eq!(part("s3://bucket/tr").as_deref(), Some(""), "a prefix of the prefix has all of it");
        assert_eq!(part("s3://bucket").as_deref(), Some(""));
        assert_eq!(part("s3://buck"), None);
        assert_eq!(part("s3://other/train/x"), None);
    }

    proptest! {
        #[test]
        fn a_listing_that_starts_there_has_all_of_a_prefix(prefix in "[a-c/é\u{1}\u{10ffff}\u{e000}]{1,6}", rest in "[a/é]{0,3}") {
            let after = start_after(prefix.as_bytes());
            let key = format!("{prefix}{rest}");
            prop_assert!(after.as_slice() < key.as_bytes(), "{after:?} {key:?}");
            prop_assert!(std::str::from_utf8(&after).is_ok());
            if let Some(end) = end_behind(prefix.as_bytes()) {
                prop_assert!(key.as_bytes() < end.as_slice() && std::str::from_utf8(&end).is_ok(), "{key:?} {end:?}");
                prop_assert!(scope_of(&prefix, false).is_behind(&end));
            }
        }
    }

    #[test]
    fn a_listing_begins_right_before_its_prefix() {
        assert!(start_after(b"").is_empty());
        assert_eq!(start_after(b"a/b"), "a/a\u{10ffff}".as_bytes());
        assert!(start_after(b"a/b").as_slice() > b"a/az/deep".as_slice());
        let long = [b'x'; KEY_BYTES_MAX];
        assert_eq!(start_after(&long).len(), KEY_BYTES_MAX);
    }
}
