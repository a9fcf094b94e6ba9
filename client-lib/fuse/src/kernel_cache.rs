//! What the kernel keeps of files, and how it is told to forget.

use std::sync::{Arc, OnceLock};

use fuser::{INodeNo, Notifier};

/// Our way to tell the kernel something unasked; there once the session with it is.
#[derive(Clone, Default)]
pub struct KernelCache(Arc<OnceLock<Notifier>>);

impl KernelCache {
    /// The session with the kernel has begun.
    pub fn begin(&self, notifier: Notifier) {
        self.0.get_or_init(|| notifier);
    }

    /// Makes the kernel ask for attributes again: an open answers without them, and another client may have changed them
    /// since they were last asked for; after a write it asks for size and times, but not for the mode that lost its
    /// privileges. A negative offset leaves pages alone and takes no lock of theirs.
    pub fn forget_attributes(&self, ino: INodeNo) {
        if let Some(Err(error)) = self.0.get().map(|k| k.inval_inode(ino, -1, 0)) {
            tracing::debug!(%error, ino = ino.0, "the kernel has no attributes to forget");
        }
    }

    /// Makes the kernel write what it has to write, drop its pages, and ask for size and times again. It waits for pages
    /// that are being read, so it must not run on a thread that answers.
    pub async fn forget_data(&self, ino: INodeNo) {
        let kernel = self.0.clone();
        let forgotten = tokio::task::spawn_blocking(move || kernel.get().map(|k| k.inval_inode(ino, 0, 0)));
        if let Ok(Some(Err(error))) = forgotten.await {
            tracing::debug!(%error, ino = ino.0, "the kernel has no data to forget");
        }
    }
}
