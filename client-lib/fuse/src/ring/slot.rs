//! Buffers that are shared with the kernel, and whose turn it is.
//!
//! An entry of a ring is a header and a payload, registered once. They belong to the kernel until it says that a request lies
//! in them; then to one [`Slot`], which is that request; and to the kernel again once the slot's answer is committed. A slot that
//! is dropped without an answer (its work panicked) is answered with EIO.

use std::cell::UnsafeCell;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::{io, slice};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::abi::{self, HEADERS_BYTES, Head, Headers, opcode};
use super::wake::WAKE_XATTR;

/// Entries whose memory is kept once it was used,
const KEPT_ENTRIES: usize = 16;
/// and how much is kept of each of the others.
const KEPT_BYTES: usize = 64 << 10;

/// The memory of one entry.
pub struct Buffers {
    headers: UnsafeCell<Box<[u8; HEADERS_BYTES]>>,
    payload: NonNull<u8>,
    payload_len: usize,
    /// What the kernel is told of the two.
    segments: [libc::iovec; 2],
}

// SAFETY: the two buffers are used by the kernel and by the one slot that there is of an entry, in turns; everything else is only
// read.
unsafe impl Send for Buffers {}
// SAFETY: as above.
unsafe impl Sync for Buffers {}

impl Buffers {
    /// Room for requests and answers of `payload` bytes. Memory is taken where it is used first.
    pub fn new(payload: usize) -> io::Result<Arc<Buffers>> {
        let mut headers = Box::new([0; HEADERS_BYTES]);
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: new memory, wherever the kernel likes.
        let mapped = unsafe { mmap_anonymous(ptr::null_mut(), payload, protection, flags) }?;
        let segments = [
            libc::iovec { iov_base: headers.as_mut_ptr().cast(), iov_len: headers.len() },
            libc::iovec { iov_base: mapped, iov_len: payload },
        ];
        let start = NonNull::new(mapped.cast()).ok_or(Errno::NOMEM)?;
        Ok(Arc::new(Buffers { headers: UnsafeCell::new(headers), payload: start, payload_len: payload, segments }))
    }

    /// What the kernel is told, valid as long as the buffers are.
    pub fn segments(&self) -> &[libc::iovec; 2] {
        &self.segments
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody has a reference any more.
        if let Err(error) = unsafe { munmap(self.payload.as_ptr().cast(), self.payload_len) } {
            tracing::debug!(%error, "the memory of a ring's entry was not given back");
        }
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
    pub fn new() -> io::Result<Arc<Mailbox>> {
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
        let len = self.headers().payload_len().min(self.buffers.payload_len);
        // SAFETY: as in `headers`; the memory is mapped, and zeros where nothing was written.
        unsafe { slice::from_raw_parts(self.buffers.payload.as_ptr(), len) }
    }

    /// Room for the answer; overwrites the request's payload.
    pub fn room(&mut self) -> &mut [u8] {
        // SAFETY: as in `payload`.
        unsafe { slice::from_raw_parts_mut(self.buffers.payload.as_ptr(), self.buffers.payload_len) }
    }

    /// Whether it was made by [`super::wake`].
    pub fn is_wake(&self) -> bool {
        self.head().opcode == opcode::GETXATTR && self.payload().strip_suffix(b"\0") == Some(WAKE_XATTR)
    }

    /// Gives the memory of a large request back before its answer, which is small, unless the entry is one of the first: the kernel
    /// takes the one that was used last.
    pub fn shrink(&mut self) {
        let large = self.payload().len() > KEPT_BYTES;
        if large && usize::from(self.entry) >= KEPT_ENTRIES {
            let memory = self.buffers.payload.as_ptr().cast();
            // SAFETY: all of it is ours, and nothing of it is used any more.
            if let Err(error) = unsafe { madvise(memory, self.buffers.payload_len, Advice::LinuxDontNeed) } {
                tracing::debug!(%error, "memory of a ring's entry was not given back");
            }
        }
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
    pub fn refuse(mut self, errno: fuser::Errno) -> Answered {
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
