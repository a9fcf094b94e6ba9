//! One ring: the requests of the programs that run on one processor, served by one thread on the same processor.
//!
//! A request has an entry until it is answered. If all entries are in use more are added: programs that wait for locks must not
//! keep the one from being heard that gives the lock up. The kernel gives an entry that was just added to the next request that
//! comes, and those that were queued before it get one when that is answered. So whenever all entries were in use, a request is
//! made on the same processor (`wake.rs`), and another one as long as such a request's entry is taken over by one that was queued.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::Entry128;
use io_uring::{IoUring, cqueue, opcode, types};

use super::serve::Server;
use super::slot::{Answered, Buffers, Mailbox, Slot};
use super::wake::Waker;

/// `FUSE_IO_URING_CMD_REGISTER`.
const REGISTER: u32 = 1;
/// `FUSE_IO_URING_CMD_COMMIT_AND_FETCH`.
const COMMIT_AND_FETCH: u32 = 2;
/// Entries in the beginning, and how many are added at least.
const ENTRIES: usize = 16;
/// Entries at most: requests of one processor's programs that can wait at the same time. Each takes address space for its
/// payload, and memory for what was used of it.
const ENTRIES_MAX: usize = 4096;
/// Room for what is submitted at once; more is submitted earlier.
const SUBMISSIONS: u32 = 64;
/// Completions that lie in the ring; the kernel keeps others for later.
const COMPLETIONS: u32 = 256;
/// Answers that may wait for the next request to be served.
const UNSUBMITTED_MAX: u32 = 4;
/// The completion that says that something is in the mailbox.
const WOKEN: u64 = u64::MAX;
/// Pause before an entry is registered again: the kernel has not finished with the answer to INIT.
const NOT_YET: Duration = Duration::from_millis(1);

type Ring = IoUring<Entry128, cqueue::Entry>;

/// A ring as the kernel wants it.
fn new_ring() -> io::Result<Ring> {
    IoUring::<Entry128, cqueue::Entry>::builder()
        .setup_cqsize(COMPLETIONS)
        .setup_submit_all()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .build(SUBMISSIONS)
}

/// Whether this process may have such rings.
pub fn probe() -> io::Result<()> {
    new_ring().map(drop)
}

struct Entry {
    buffers: Arc<Buffers>,
    /// The answer that it was last submitted with; `None`: it was registered.
    committed: Option<u64>,
}

/// See the module.
pub struct Queue {
    ring: Ring,
    /// Number of the processor.
    number: u16,
    connection: Arc<OwnedFd>,
    server: Arc<Server>,
    waker: Waker,
    mailbox: Arc<Mailbox>,
    /// Where the kernel reads the mailbox's count to: for ever, because a ring that has ended may still do it.
    woken: &'static mut [u8; 8],
    entries: Vec<Entry>,
    payload: usize,
    completed: VecDeque<(u64, i32)>,
    unsubmitted: u32,
    /// Entries that the kernel has not given up.
    live: usize,
    /// Entries with a request.
    busy: usize,
    /// A request has come.
    serves: bool,
    error: Option<io::Error>,
}

impl Queue {
    /// For the thread that is to [`Queue::run`] it. Payloads are of `payload` bytes.
    pub fn new(
        number: u16,
        connection: Arc<OwnedFd>,
        (server, waker): (Arc<Server>, Waker),
        payload: usize,
    ) -> io::Result<Queue> {
        Ok(Queue {
            ring: new_ring()?,
            number,
            connection,
            server,
            waker,
            mailbox: Mailbox::new()?,
            woken: Box::leak(Box::new([0; 8])),
            entries: Vec::new(),
            payload,
            completed: VecDeque::new(),
            unsubmitted: 0,
            live: 0,
            busy: 0,
            serves: false,
            error: None,
        })
    }

    /// Serves until the mount has ended.
    pub fn run(mut self) -> io::Result<()> {
        self.listen()?;
        self.add_entries()?;
        while self.live > 0 {
            self.unsubmitted = 0;
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            self.collect();
            while let Some((what, result)) = self.completed.pop_front() {
                self.complete(what, result)?;
                if self.unsubmitted > UNSUBMITTED_MAX {
                    self.submit()?;
                }
            }
        }
        self.error.take().map_or(Ok(()), Err)
    }

    fn collect(&mut self) {
        self.completed.extend(self.ring.completion().map(|done| (done.user_data(), done.result())));
    }

    fn submit(&mut self) -> io::Result<()> {
        self.unsubmitted = 0;
        self.ring.submit()?;
        self.collect();
        Ok(())
    }

    fn complete(&mut self, what: u64, result: i32) -> io::Result<()> {
        if what == WOKEN {
            self.listen()?;
            return self.mailbox.take().into_iter().try_for_each(|answered| self.commit(answered));
        }
        let entry = what as u16;
        match -result {
            0 => self.serve(entry),
            libc::EAGAIN => {
                std::thread::sleep(NOT_YET);
                self.submit_entry(entry)
            }
            libc::EINTR => self.submit_entry(entry),
            errno => {
                self.live -= 1;
                // The end of the mount takes all entries back.
                if ![libc::ENOTCONN, libc::ECANCELED, libc::ECONNABORTED].contains(&errno) {
                    self.gave_up(entry, errno);
                }
                Ok(())
            }
        }
    }

    fn gave_up(&mut self, entry: u16, errno: i32) {
        let error = io::Error::from_raw_os_error(errno);
        tracing::warn!(processor = self.number, entry, %error, "the kernel gave an entry of a ring up");
        // One that refuses what it knows goes on by `/dev/fuse`, if that is how it begins.
        if self.serves || errno != libc::EINVAL {
            self.error = Some(error);
        }
    }

    fn serve(&mut self, entry: u16) -> io::Result<()> {
        self.serves = true;
        self.busy += 1;
        if self.busy == self.live && self.entries.len() < ENTRIES_MAX {
            self.add_entries()?;
            // At once: there may be requests that wait for an entry already.
            self.submit()?;
            self.waker.wake(self.number);
        }
        let buffers = self.entries[usize::from(entry)].buffers.clone();
        // SAFETY: the kernel has completed the entry's command, and a slot was last made of it before that was submitted.
        let slot = unsafe { Slot::new(buffers, self.mailbox.clone(), entry) };
        if slot.is_wake() {
            return self.awake(slot, entry);
        }
        match self.server.serve(slot) {
            Some(answered) => self.commit(answered),
            None => Ok(()),
        }
    }

    /// A request that was made to free those that wait for entries: each answer frees one.
    fn awake(&mut self, slot: Slot, entry: u16) -> io::Result<()> {
        self.commit(slot.refuse(fuser::Errno::ENODATA))?;
        self.submit()?;
        if self.completed.iter().any(|(what, _)| *what == u64::from(entry)) {
            self.waker.wake(self.number);
        }
        Ok(())
    }

    /// As many as there are, from [`ENTRIES`] to [`ENTRIES_MAX`] in all.
    fn add_entries(&mut self) -> io::Result<()> {
        let wanted = (2 * self.entries.len()).clamp(ENTRIES, ENTRIES_MAX);
        while self.entries.len() < wanted {
            let entry = self.entries.len() as u16;
            self.entries.push(Entry { buffers: Buffers::new(self.payload)?, committed: None });
            self.live += 1;
            self.submit_entry(entry)?;
        }
        Ok(())
    }

    fn commit(&mut self, Answered { entry, commit_id }: Answered) -> io::Result<()> {
        self.busy -= 1;
        self.unsubmitted += 1;
        self.entries[usize::from(entry)].committed = Some(commit_id);
        self.submit_entry(entry)
    }

    /// Gives an entry to the kernel, with its answer if it has one.
    fn submit_entry(&mut self, entry: u16) -> io::Result<()> {
        let Entry { buffers, committed } = &self.entries[usize::from(entry)];
        let command = match committed {
            Some(commit_id) => self.command(COMMIT_AND_FETCH, *commit_id).build(),
            None => {
                let segments = buffers.segments();
                let command = self.command(REGISTER, 0).addr(Some(segments.as_ptr() as u64));
                with_len(command.build(), segments.len() as u32)
            }
        };
        self.push(command.user_data(u64::from(entry)))
    }

    /// `struct fuse_uring_cmd_req`: flags, the number of the commit, the number of the queue.
    fn command(&self, operation: u32, commit_id: u64) -> opcode::UringCmd80 {
        let mut request = [0; 80];
        request[8..16].copy_from_slice(&commit_id.to_ne_bytes());
        request[16..18].copy_from_slice(&self.number.to_ne_bytes());
        opcode::UringCmd80::new(types::Fd(self.connection.as_raw_fd()), operation).cmd(request)
    }

    /// Hears of the mailbox's next answer.
    fn listen(&mut self) -> io::Result<()> {
        let fd = types::Fd(self.mailbox.wake().as_raw_fd());
        let read = opcode::Read::new(fd, self.woken.as_mut_ptr(), self.woken.len() as u32).build();
        self.push(Entry128::from(read).user_data(WOKEN))
    }

    fn push(&mut self, command: Entry128) -> io::Result<()> {
        loop {
            // SAFETY: what a command points to (an entry's buffers, the mailbox's word) lives as long as the ring.
            if unsafe { self.ring.submission().push(&command) }.is_ok() {
                return Ok(());
            }
            self.submit()?;
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // The kernel may still write to what it has not given back.
        if self.live > 0 {
            self.entries.drain(..).for_each(std::mem::forget);
        }
    }
}

/// Offset of `len` in `struct io_uring_sqe`.
const SQE_LEN: usize = 24;

/// The command with the number of segments at its address, for which the builder has no setter.
fn with_len(mut command: Entry128, len: u32) -> Entry128 {
    const { assert!(size_of::<Entry128>() == 128) };
    // SAFETY: an `Entry128` is `struct io_uring_sqe` of 128 bytes, all of them initialised.
    unsafe { (&raw mut command).cast::<u8>().add(SQE_LEN).cast::<u32>().write_unaligned(len) };
    command
}
