//! Who a request comes from.
//!
//! The kernel sends user and group; supplementary groups are looked up in `/proc`, as other FUSE file systems do. A
//! process that ended meanwhile, or the kernel itself (process 0), has none.

use std::fs::File;
use std::io::Read;

use sateen_types::Credential;
use sateen_types::limits::GROUPS_MAX;

/// Most bytes read of `/proc/PID/status`: [`GROUPS_MAX`] groups of ten digits and the rest of the file.
const STATUS_BYTES_MAX: u64 = (GROUPS_MAX as u64) * 11 + 8192;

/// The caller's identity.
pub fn of_request(request: &fuser::Request) -> Credential {
    of_process(request.uid(), request.gid(), request.pid())
}

/// The identity of process `pid`, which runs as `uid` and `gid`. Root needs no groups: it may do anything.
pub fn of_process(uid: u32, gid: u32, pid: u32) -> Credential {
    let groups = if uid == 0 || pid == 0 { Vec::new() } else { groups_of(pid) };
    Credential { uid, gid, groups }
}

fn groups_of(pid: u32) -> Vec<u32> {
    let mut text = String::new();
    let read =
        File::open(format!("/proc/{pid}/status")).and_then(|f| f.take(STATUS_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => parse_groups(&text),
        Err(_) => Vec::new(),
    }
}

/// The numbers of the line `Groups:`.
fn parse_groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|l| l.strip_prefix("Groups:")).unwrap_or_default();
    line.split_ascii_whitespace().map_while(|g| g.parse().ok()).take(GROUPS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supplementary_groups_are_read_from_the_status_file() {
        assert_eq!(parse_groups("Name:\tx\nGid:\t1\t1\t1\t1\nGroups:\t4 24 1000 \nNStgid:\t1\n"), [4, 24, 1000]);
        assert_eq!(parse_groups("Name:\tx\nGroups:\t \n"), Vec::<u32>::new());
        assert_eq!(parse_groups(""), Vec::<u32>::new());
    }

    #[test]
    fn a_process_that_does_not_exist_has_no_groups() {
        assert!(groups_of(u32::MAX).is_empty());
    }
}
