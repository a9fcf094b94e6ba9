//! What the kernel makes of posix_fadvise(2) on a mount: it acts on the kernel's own pages, and what reaches the mount
//! process are ordinary reads, or none.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use sateen_tests::rng::{noise, seeded};
use sateen_tests::{Cluster, ClusterSpec, wait};

const PAGE: usize = 4096;
const LEN: usize = 8 << 20;
/// What happens in the background happens within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pages of a file that the kernel has.
fn resident(file: &File) -> usize {
    let mut pages = vec![0u8; LEN / PAGE];
    // SAFETY: a new mapping that nobody reads or writes through; mincore writes one byte per page of it.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), LEN, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        assert_eq!(libc::mincore(at, LEN, pages.as_mut_ptr()), 0, "{}", std::io::Error::last_os_error());
        assert_eq!(libc::munmap(at, LEN), 0);
    }
    pages.iter().filter(|p| **p & 1 == 1).count()
}

fn open(path: &Path) -> File {
    let file = File::open(path).expect("open");
    // Pages of an earlier open may have been kept.
    fadvise(file.as_fd(), 0, None, Advice::DontNeed).expect("advised");
    file
}

#[test]
fn the_kernel_acts_on_its_own_pages() {
    let cluster = Cluster::start(ClusterSpec::new("advice"));
    let mount = cluster.mount();
    let path = mount.join("f");
    let data = noise(&mut seeded("advice"), LEN);
    std::fs::write(&path, &data).expect("written");

    let file = open(&path);
    wait::until("DONTNEED drops pages", PATIENCE, || (resident(&file) == 0).then_some(()));

    fadvise(file.as_fd(), 0, None, Advice::Random).expect("advised");
    let mut page = [0; PAGE];
    for at in [3 << 20, 1 << 20, (1 << 20) + PAGE, 5 << 20] {
        file.read_exact_at(&mut page, at as u64).expect("read");
        assert!(page == data[at..at + PAGE], "at {at}");
    }
    assert_eq!(resident(&file), 4, "RANDOM: the kernel reads nothing but what is asked for");

    let file = open(&path);
    fadvise(file.as_fd(), 0, std::num::NonZeroU64::new(1 << 20), Advice::WillNeed).expect("advised");
    wait::until("WILLNEED fetches pages", PATIENCE, || (resident(&file) >= (1 << 20) / PAGE).then_some(()));
    let mut all = vec![0; LEN];
    file.read_exact_at(&mut all, 0).expect("read");
    assert!(all == data);
}
