//! One ring: the requests of the programs that run on one processor, served by one thread on the same processor.
//!
//! A request waits in an entry until it is answered. If all entries are in use, another one is added: programs that wait for locks
//! must not keep the one from being heard that gives the lock up.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::Entry128;
use io_uring::{IoUring, cqueue, opcode, types};

use super::serve::Server;
use super::slot::{Answered, Buffers, Mailbox, Slot};

/// `FUSE_IO_URING_CMD_REGISTER`.
const REGISTER: u32 = 1;
/// `FUSE_IO_URING_CMD_COMMIT_AND_FETCH`.
const COMMIT_AND_FETCH: u32 = 2;
/// Entries in the beginning.
const ENTRIES: u16 = 4;
/// Entries at most: requests of one processor's programs that can wait at the same time. Each takes address space for its
/// payload, and memory for what was used of it.
const ENTRIES_MAX: u16 = 4096;
/// Room for what is submitted at once; more is submitted earlier.
const SUBMISSIONS: u32 = 64;
/// Completions that fit: one for each entry, and the mailbox's.
const COMPLETIONS: u32 = 2 * ENTRIES_MAX as u32;
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

/// See the module.
pub struct Queue {
    ring: Ring,
    /// Number of the processor.
    number: u16,
    connection: Arc<OwnedFd>,
    server: Arc<Server>,
    mailbox: Arc<Mailbox>,
    woken: Box<[u8; 8]>,
    entries: Vec<Arc<Buffers>>,
    payload: usize,
    /// Entries that the kernel has not given up.
    live: usize,
    /// Entries with a request.
    busy: usize,
}

impl Queue {
    /// For the thread that is to [`Queue::run`] it. Payloads are of `payload` bytes.
    pub fn new(number: u16, connection: Arc<OwnedFd>, server: Arc<Server>, payload: usize) -> io::Result<Queue> {
        let (ring, mailbox, woken) = (new_ring()?, Mailbox::new()?, Box::new([0; 8]));
        let entries = Vec::new();
        Ok(Queue { ring, number, connection, server, mailbox, woken, entries, payload, live: 0, busy: 0 })
    }

    /// Serves until the mount has ended.
    pub fn run(mut self) -> io::Result<()> {
        self.listen()?;
        for _ in 0..ENTRIES {
            self.add_entry()?;
        }
        while self.live > 0 {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            loop {
                let Some(done) = self.ring.completion().next() else { break };
                self.completed(done.user_data(), done.result())?;
            }
        }
        Ok(())
    }

    fn completed(&mut self, what: u64, result: i32) -> io::Result<()> {
        if what == WOKEN {
            self.listen()?;
            return self.mailbox.take().into_iter().try_for_each(|answered| self.commit(answered));
        }
        let entry = what as u16;
        match -result {
            0 => self.serve(entry),
            libc::EAGAIN => {
                std::thread::sleep(NOT_YET);
                self.register(entry)
            }
            errno => {
                // The end of the mount takes all entries back.
                if ![libc::ENOTCONN, libc::ECANCELED].contains(&errno) {
                    tracing::warn!(processor = self.number, entry, errno, "the kernel gave an entry of a ring up");
                }
                self.live -= 1;
                Ok(())
            }
        }
    }

    fn serve(&mut self, entry: u16) -> io::Result<()> {
        self.busy += 1;
        if self.busy == self.entries.len() && self.entries.len() < usize::from(ENTRIES_MAX) {
            self.add_entry()?;
        }
        let buffers = self.entries[usize::from(entry)].clone();
        // SAFETY: the kernel has completed the entry's command, and a slot was last made of it before that was submitted.
        let slot = unsafe { Slot::new(buffers, self.mailbox.clone(), entry) };
        match self.server.serve(slot) {
            Some(answered) => self.commit(answered),
            None => Ok(()),
        }
    }

    fn add_entry(&mut self) -> io::Result<()> {
        let entry = self.entries.len() as u16;
        self.entries.push(Buffers::new(self.payload));
        self.live += 1;
        self.register(entry)
    }

    fn register(&mut self, entry: u16) -> io::Result<()> {
        let segments = self.entries[usize::from(entry)].segments();
        let addr = segments.as_ptr() as u64;
        let command = self.command(REGISTER, 0).addr(Some(addr));
        let command = with_len(command.build(), segments.len() as u32).user_data(u64::from(entry));
        self.push(command)
    }

    fn commit(&mut self, Answered { entry, commit_id }: Answered) -> io::Result<()> {
        self.busy -= 1;
        let command = self.command(COMMIT_AND_FETCH, commit_id).build().user_data(u64::from(entry));
        self.push(command)
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
            self.ring.submit()?;
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // A ring that goes with entries the kernel has not given back would leave it writing into memory that is not there.
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
