//! The numbers the kernel knows open files and directories by.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use sateen_types::{FsCode, FsError, FsResult};

/// Most handles of one kind. Above the usual system-wide limit of open files, so that ours is not met first.
const HANDLES_MAX: usize = 1 << 20;

/// A table from handle numbers to what is open. Numbers start at 1 and are never used twice.
#[derive(Debug)]
pub struct Handles<T> {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Handles<T> {
        Handles { next: AtomicU64::new(1), open: RwLock::new(HashMap::new()) }
    }
}

impl<T> Handles<T> {
    /// Remembers `value` and gives its number. When the table is full, `value` is dropped.
    pub fn insert(&self, value: T) -> FsResult<u64> {
        let mut open = self.open.write();
        if open.len() >= HANDLES_MAX {
            return Err(FsError::new(FsCode::Busy, format!("{HANDLES_MAX} handles are open on this mount")));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        open.insert(number, Arc::new(value));
        Ok(number)
    }

    /// What `number` stands for; `Stale` if it is not open.
    pub fn get(&self, number: u64) -> FsResult<Arc<T>> {
        self.open.read().get(&number).cloned().ok_or_else(|| stale(number))
    }

    /// Forgets `number` and gives what it stood for.
    pub fn remove(&self, number: u64) -> FsResult<Arc<T>> {
        self.open.write().remove(&number).ok_or_else(|| stale(number))
    }
}

fn stale(number: u64) -> FsError {
    FsError::new(FsCode::Stale, format!("handle {number} is not open"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_good_until_it_is_removed_and_never_again() {
        let handles = Handles::default();
        let a = handles.insert("a").expect("room");
        assert_eq!(*handles.get(a).expect("open"), "a");
        handles.remove(a).expect("open");
        assert_eq!(handles.get(a).expect_err("closed").code, FsCode::Stale);
        assert_eq!(handles.remove(a).expect_err("closed").code, FsCode::Stale);
        assert_ne!(handles.insert("b").expect("room"), a);
    }
}
