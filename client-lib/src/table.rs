//! Which files this client has state of: those in use (weakly) and those with data here (kept alive until it is safe).

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use sateen_types::{Attr, Fid, FsId, Layout};

use crate::cache::ChunkCache;
use crate::inode::{Inode, Learnt};
use crate::opens::Keeps;

/// See the module. Lock order: an inode's state, then `pinned`; `live` is taken alone or before an inode's state.
#[derive(Debug, Default)]
pub(crate) struct Table {
    live: Mutex<HashMap<Fid, Weak<Inode>>>,
    pinned: Mutex<HashMap<Fid, Arc<Inode>>>,
}

/// Dead entries of `live` are swept when it has grown to this many, and to twice what remained after a sweep.
const SWEEP_AT_LEAST: usize = 1024;

impl Table {
    /// The state of a file that was just opened; the second value says whether what is cached of it is still right.
    pub fn opened(
        &self,
        fs: FsId,
        attr: &Attr,
        answered: (Layout, Learnt),
        keeps: Arc<Keeps>,
        cache: &Arc<ChunkCache>,
    ) -> (Arc<Inode>, bool) {
        let mut live = self.live.lock();
        if let Some(inode) = live.get(&attr.fid).and_then(Weak::upgrade) {
            let valid = inode.observe_open(attr, answered, keeps);
            return (inode, valid);
        }
        let (inode, valid) = Inode::new(fs, attr.clone(), answered, keeps, Arc::clone(cache));
        let inode = Arc::new(inode);
        if live.len() >= SWEEP_AT_LEAST && live.len() == live.capacity() {
            live.retain(|_, inode| inode.strong_count() > 0);
        }
        live.insert(attr.fid, Arc::downgrade(&inode));
        (inode, valid)
    }

    /// The state of a file, if there is any.
    pub fn get(&self, fid: Fid) -> Option<Arc<Inode>> {
        self.live.lock().get(&fid).and_then(Weak::upgrade)
    }

    /// Keeps a file that has data here. Called with its state locked.
    pub fn pin(&self, inode: &Arc<Inode>) {
        self.pinned.lock().insert(inode.fid, Arc::clone(inode));
    }

    /// Lets a file go if it has no data here any more.
    pub fn unpin_if_clean(&self, inode: &Arc<Inode>) {
        let mut state = inode.state();
        if state.pinned && state.is_clean() {
            state.pinned = false;
            self.pinned.lock().remove(&inode.fid);
        }
    }

    /// Every file with data here.
    pub fn pinned(&self) -> Vec<Arc<Inode>> {
        self.pinned.lock().values().cloned().collect()
    }
}
