//! What `lfs hsm_state` and `lfs hsm_action` print. Pure.

use sateen_types::HsmFlags;
use sateen_types::repository::HsmAction;
use serde::Deserialize;

/// Number of the archive that every repository is in Lustre's words. (FSx has one, too.)
pub const ARCHIVE_ID: u32 = 1;

/// What the mount tells of a file and its object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Hsm {
    /// Lustre's state bits.
    pub flags: u32,
    /// Lustre's number of what is being done.
    pub action: u32,
    /// Its repository, if there still is one.
    pub repository: Option<String>,
    /// A worker is at it. (Mounts of before do not tell.)
    #[serde(default)]
    pub running: bool,
    /// Bytes of the object that the OSTs have.
    pub loaded_bytes: u64,
}

impl Hsm {
    /// Whether some of its bytes are only in the repository.
    pub fn is_released(&self) -> bool {
        HsmFlags(self.flags).has(HsmFlags::RELEASED)
    }
}

/// `FILE: (0x0000000d) released exists archived, archive_id:1`
pub fn state(path: &str, hsm: Option<&Hsm>) -> String {
    let flags = HsmFlags(hsm.map_or(0, |hsm| hsm.flags));
    match hsm.and_then(|hsm| hsm.repository.as_ref()) {
        Some(_) => format!("{path}: {flags}, archive_id:{ARCHIVE_ID}\n"),
        None => format!("{path}: {flags}\n"),
    }
}

/// `FILE: NOOP`, `FILE: RESTORE waiting (from 0 to EOF)` or `FILE: RESTORE running (N bytes moved)`. How much of an archive or a removal was
/// moved nobody tells: 0.
pub fn action(path: &str, hsm: Option<&Hsm>) -> String {
    let none = Hsm::default();
    let hsm = hsm.unwrap_or(&none);
    match HsmAction::from_wire(hsm.action) {
        None => format!("{path}: UNKNOWN\n"),
        Some(HsmAction::None) => format!("{path}: {}\n", HsmAction::None),
        Some(action) => {
            let moved = if action == HsmAction::Restore { hsm.loaded_bytes } else { 0 };
            match hsm.running || moved > 0 {
                true => format!("{path}: {action} running ({moved} bytes moved)\n"),
                false => format!("{path}: {action} waiting (from 0 to EOF)\n"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hsm(flags: u32, action: u32, loaded_bytes: u64) -> Hsm {
        Hsm { flags, action, running: false, repository: Some("dra-00000000000000001".to_owned()), loaded_bytes }
    }

    #[test]
    fn states_are_printed_as_in_lustre() {
        let of = |flags| state("f", Some(&hsm(flags, 0, 0)));
        assert_eq!(of(0xd), "f: (0x0000000d) released exists archived, archive_id:1\n");
        assert_eq!(of(0x9), "f: (0x00000009) exists archived, archive_id:1\n");
        assert_eq!(
            of(0x7b),
            "f: (0x0000007b) exists dirty archived never_release never_archive lost_from_hsm, archive_id:1\n"
        );
        assert_eq!(state("f", Some(&Hsm { flags: 9, ..Hsm::default() })), "f: (0x00000009) exists archived\n");
        assert_eq!(state("a b", None), "a b: (0x00000000)\n");
    }

    #[test]
    fn actions_are_printed_as_in_lustre() {
        assert_eq!(action("f", None), "f: NOOP\n");
        assert_eq!(action("f", Some(&hsm(9, 0, 5))), "f: NOOP\n");
        assert_eq!(action("f", Some(&hsm(13, 11, 0))), "f: RESTORE waiting (from 0 to EOF)\n");
        assert_eq!(action("f", Some(&hsm(13, 11, 4096))), "f: RESTORE running (4096 bytes moved)\n");
        // Bytes that the OSTs have are not bytes that went to the repository.
        assert_eq!(action("f", Some(&hsm(3, 10, 4096))), "f: ARCHIVE waiting (from 0 to EOF)\n");
        let running = |number| Hsm { running: true, ..hsm(0, number, 0) };
        assert_eq!(action("f", Some(&running(10))), "f: ARCHIVE running (0 bytes moved)\n");
        assert_eq!(action("f", Some(&running(11))), "f: RESTORE running (0 bytes moved)\n");
        assert_eq!(action("f", Some(&running(12))), "f: REMOVE running (0 bytes moved)\n");
    }

    #[test]
    fn what_a_newer_mount_adds_does_not_matter() {
        let text = r#"{"flags":13,"action":0,"repository":null,"key":"k","loaded_bytes":1,"remote_bytes":2,"more":[]}"#;
        let hsm: Hsm = serde_json::from_str(text).expect("read");
        assert!(hsm.is_released() && hsm.repository.is_none() && hsm.loaded_bytes == 1);
    }
}
