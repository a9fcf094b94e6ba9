//! What a mount asks of the kernel when it begins.

use fuser::{InitFlags, KernelConfig};

/// Largest write the kernel sends at once: one stripe.
pub const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Read-ahead and asynchronous direct I/O the kernel may have in flight; above the RPCs a client has per OST.
const BACKGROUND_MAX: u16 = 64;

/// What we ask of the kernel, where it can. Not the writeback cache: the client's own is coherent at close and open.
const WANTED: [InitFlags; 12] = [
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_AUTO_INVAL_DATA,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    InitFlags::FUSE_DO_READDIRPLUS,
    // A default ACL takes the place of the umask, which the MDS decides.
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_EXPORT_SUPPORT,
    // The MDS clears setuid and setgid bits; the kernel only says when a writer has no right to keep them.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_POSIX_ACL,
];

/// What we ask for besides, unless locks stay with the kernel.
const WANTED_FOR_LOCKS: [InitFlags; 2] = [InitFlags::FUSE_POSIX_LOCKS, InitFlags::FUSE_FLOCK_LOCKS];

/// Asks for all that the kernel can do, for locks if they are cluster-wide, and for requests by rings if they are wanted; true if
/// those will come.
pub fn ask(config: &mut KernelConfig, cluster_locks: bool, rings: bool) -> bool {
    let for_locks = WANTED_FOR_LOCKS.iter().filter(|_| cluster_locks);
    for flag in WANTED.iter().chain(for_locks).copied() {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "the kernel does not offer this");
        }
    }
    // Both setters answer with the nearest value that is possible.
    if let Err(most) = config.set_max_write(WRITE_BYTES_MAX) {
        let _ = config.set_max_write(most);
    }
    let _ = config.set_max_background(BACKGROUND_MAX);
    rings && config.add_capabilities(InitFlags::FUSE_OVER_IO_URING).is_ok()
}
