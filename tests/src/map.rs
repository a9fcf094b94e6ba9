//! Memory maps of files.

use std::fs::File;
use std::os::fd::AsRawFd;

/// A shared, writable mapping of the first bytes of a file.
pub struct Map {
    start: *mut libc::c_void,
    len: usize,
}

impl Map {
    /// Maps `len` bytes.
    pub fn shared(file: &File, len: usize) -> Map {
        // SAFETY: a fresh mapping of an open file; nothing else refers to it.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Map { start, len }
    }

    /// What is mapped.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `len` bytes long and lives as long as `self`.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.len) }
    }

    /// Writes what was changed to the file (`msync`).
    pub fn sync(&self) {
        // SAFETY: the range is our mapping.
        let done = unsafe { libc::msync(self.start, self.len, libc::MS_SYNC) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is our mapping, and nobody uses it any more.
        unsafe { libc::munmap(self.start, self.len) };
    }
}
