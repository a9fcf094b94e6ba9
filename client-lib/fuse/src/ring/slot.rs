//! Buffers that are shared with the kernel, and whose turn it is.
//!
//! An entry of a ring is a header and a payload, registered once. They belong to the kernel until it says that a request lies
//! in them; then to one [`Slot`], which is that request; and to the kernel again once the slot's answer is committed. A slot that
//! is dropped without an answer (its work panicked) is answered with EIO.

use std::cell::UnsafeCell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use fuser::Errno;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use super::abi::{self, HEADERS_BYTES, Head, Headers};

/// The memory of one entry.
pub struct Buffers {
    headers: UnsafeCell<Box<[u8; HEADERS_BYTES]>>,
    payload: UnsafeCell<Box<[u8]>>,
    /// What the kernel is told of the two.
    segments: [libc::iovec; 2],
}

// SAFETY: the two buffers are used by the kernel and by the one slot that there is of an entry, in turns; `segments` is only
// read.
unsafe impl Send for Buffers {}
// SAFETY: as above.
unsafe impl Sync for Buffers {}

impl Buffers {
    /// Room for requests and answers of `payload` bytes. Memory is taken where it is used first.
    pub fn new(payload: usize) -> Arc<Buffers> {
        let (mut headers, mut payload) = (Box::new([0; HEADERS_BYTES]), vec![0; payload].into_boxed_slice());
        let segments = [
            libc::iovec { iov_base: headers.as_mut_ptr().cast(), iov_len: headers.len() },
            libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() },
        ];
        Arc::new(Buffers { headers: UnsafeCell::new(headers), payload: UnsafeCell::new(payload), segments })
    }

    /// What the kernel is told, valid as long as the buffers are.
    pub fn segments(&self) -> &[libc::iovec; 2] {
        &self.segments
    }
}

/// An answer that waits to be committed.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Which entry.
    pub entry: u16,
    /// Which request.
    pub commit_id: u64,
}

/// Answers that come from other threads than the ring's, which is woken for them. At most one for each entry.
pub struct Mailbox {
    answered: Mutex<Vec<Answered>>,
    wake: OwnedFd,
}

impl Mailbox {
    /// Empty.
    pub fn new() -> std::io::Result<Arc<Mailbox>> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Arc::new(Mailbox { answered: Mutex::default(), wake }))
    }

    /// Readable when there is something.
    pub fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    /// What is there.
    pub fn take(&self) -> Vec<Answered> {
        std::mem::take(&mut *self.answered.lock())
    }

    /// Commits an answer, from any thread.
    pub fn put(&self, answered: Answered) {
        let first = {
            let mut list = self.answered.lock();
            list.push(answered);
            list.len() == 1
        };
        // Whoever put the first has woken the ring's thread.
        if first && let Err(error) = rustix::io::write(self.wake.as_fd(), &1u64.to_ne_bytes()) {
            tracing::error!(%error, "the thread of a ring cannot be woken");
        }
    }
}

/// A request, until it is answered.
pub struct Slot {
    buffers: Arc<Buffers>,
    mailbox: Arc<Mailbox>,
    entry: u16,
    commit_id: u64,
    unique: u64,
    answered: bool,
}

impl Slot {
    /// The request that lies in `buffers`.
    ///
    /// # Safety
    /// The kernel has just handed over the entry, and nobody else has a slot of it.
    pub unsafe fn new(buffers: Arc<Buffers>, mailbox: Arc<Mailbox>, entry: u16) -> Slot {
        let mut slot = Slot { buffers, mailbox, entry, commit_id: 0, unique: 0, answered: false };
        (slot.commit_id, slot.unique) = (slot.headers().commit_id(), slot.head().unique);
        slot
    }

    /// What is asked and by whom.
    pub fn head(&self) -> Head {
        self.headers().head()
    }

    /// The head and the operation's structure.
    pub fn headers(&self) -> Headers<'_> {
        // SAFETY: the entry is ours until this slot is gone, and `&mut self` is needed to change it.
        Headers(unsafe { &*self.buffers.headers.get() })
    }

    /// What else belongs to the request.
    pub fn payload(&self) -> &[u8] {
        // SAFETY: as in `headers`.
        let payload = unsafe { &*self.buffers.payload.get() };
        &payload[..self.headers().payload_len().min(payload.len())]
    }

    /// Room for the answer; overwrites the request's payload.
    pub fn room(&mut self) -> &mut [u8] {
        // SAFETY: as in `headers`.
        unsafe { &mut *self.buffers.payload.get() }
    }

    /// Answers with what was put into the first `len` bytes of [`Slot::room`].
    pub fn answer(mut self, len: usize) -> Answered {
        self.finish(0, len)
    }

    /// Answers with `bytes`.
    pub fn answer_with(mut self, bytes: &[u8]) -> Answered {
        match self.room().get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.finish(0, bytes.len())
            }
            None => self.finish(libc::ERANGE, 0),
        }
    }

    /// Answers with an error.
    pub fn refuse(mut self, errno: Errno) -> Answered {
        self.finish(errno.code(), 0)
    }

    fn finish(&mut self, errno: i32, len: usize) -> Answered {
        // SAFETY: as in `headers`.
        let headers = unsafe { &mut *self.buffers.headers.get() };
        abi::answer(headers, self.unique, errno, len);
        self.answered = true;
        Answered { entry: self.entry, commit_id: self.commit_id }
    }

    /// Where an answer goes that is not given on the ring's thread.
    pub fn mailbox(&self) -> Arc<Mailbox> {
        self.mailbox.clone()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.answered {
            let answered = self.finish(libc::EIO, 0);
            self.mailbox.put(answered);
        }
    }
}
