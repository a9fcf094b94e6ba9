//! Mount options: the text behind `-o`, parsed once.
//!
//! Spelling follows mount(8), FUSE and Lustre. An option that changes nothing here (`_netdev`, `x-systemd.*`)
//! is accepted, because it is meant for somebody else or describes what is the case anyway; one nobody knows is an
//! error, because a typing mistake in fstab must not silently mount something else.

use std::time::Duration;

use sateen_client::AccessTimes;
use sateen_types::{FsCode, FsError, FsResult};

/// How long the kernel may trust a name or attributes without asking, unless said otherwise.
const CACHE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
/// Longest time that can be asked for: a year. Larger numbers are typing mistakes.
const SECONDS_MAX: f64 = 365.0 * 86_400.0;
/// Largest number of MiB that can be asked for: 1 TiB.
const MIB_MAX: u64 = 1 << 20;

/// Options that are accepted and change nothing: hints for mount(8) and systemd, defaults of ours, and Lustre's
/// names for what is always so.
const ACCEPTED: [&str; 26] = [
    "async",
    "atime",
    "auto",
    "default_permissions",
    "defaults",
    "dev",
    "diratime",
    "exec",
    "group",
    "lazystatfs",
    "_netdev",
    "noauto",
    "nodiratime",
    "nofail",
    "norelatime",
    "nouser",
    "nouser_xattr",
    "owner",
    "relatime",
    "rw",
    "strictatime",
    "suid",
    "user",
    "user_xattr",
    "users",
    "nolazystatfs",
];
/// The options that do something, for the hint about an unknown one.
const EFFECTIVE: &str = "ro, allow_other, entry_timeout=S, attr_timeout=S, relatime, noatime, strictatime, nosuid, nodev, noexec, dirsync, flock, localflock, io_uring, noio_uring, soft, hard, \
                         timeout=S, connect_timeout=S, dirty_mb=N, cache_mb=N, readahead_mb=N";

/// What a mount was asked to be.
#[derive(Clone, Debug, PartialEq)]
pub struct MountOptions {
    /// No changes through this mount.
    pub read_only: bool,
    /// Users other than the one who mounts may use it. Always so for root.
    pub allow_other: bool,
    /// Which reads change access times.
    pub access_times: AccessTimes,
    /// setuid and setgid bits have no effect.
    pub no_suid: bool,
    /// Device nodes do not work.
    pub no_dev: bool,
    /// Programs cannot be started.
    pub no_exec: bool,
    /// flock and fcntl locks are between the programs of this mount only.
    pub local_locks: bool,
    /// Changes of names are durable when they are answered, also in directories that this mount has to itself.
    pub dir_sync: bool,
    /// How long the kernel may trust a name.
    pub entry_timeout: Duration,
    /// How long the kernel may trust attributes.
    pub attr_timeout: Duration,
    /// How long an operation waits for an unreachable server; `None` is for ever (`hard`).
    pub patience: Patience,
    /// How long mounting waits for the MDS; `None` is the client's default.
    pub connect_timeout: Option<Duration>,
    /// Bound of unwritten data; `None` is the client's default.
    pub dirty_bytes: Option<u64>,
    /// Bound of cached data; `None` is the client's default.
    pub cache_bytes: Option<u64>,
    /// Largest read-ahead window; `None` is the client's default.
    pub readahead_bytes: Option<u64>,
    /// How requests come from the kernel.
    pub requests: Requests,
}

/// How requests come from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    /// By io_uring if that is switched on (`/sys/module/fuse/parameters/enable_uring`) and works, else by `/dev/fuse`.
    AsEnabled,
    /// By io_uring, or not at all.
    ByRings,
    /// By `/dev/fuse`.
    ByDevice,
}

/// What happens while a server cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Patience {
    /// Give up after the client's default time.
    Default,
    /// Give up after this long.
    Soft(Duration),
    /// Never give up.
    Hard,
}

impl Default for MountOptions {
    fn default() -> MountOptions {
        MountOptions {
            read_only: false,
            allow_other: false,
            access_times: AccessTimes::Relative,
            no_suid: false,
            no_dev: false,
            no_exec: false,
            local_locks: false,
            dir_sync: false,
            entry_timeout: CACHE_TIMEOUT_DEFAULT,
            attr_timeout: CACHE_TIMEOUT_DEFAULT,
            patience: Patience::Default,
            connect_timeout: None,
            dirty_bytes: None,
            cache_bytes: None,
            readahead_bytes: None,
            requests: Requests::AsEnabled,
        }
    }
}

impl MountOptions {
    /// Parses comma-separated options, each of `lists` being one `-o` argument. Later options win.
    /// `sloppy` (mount's `-s`) skips unknown ones.
    pub fn parse<S: AsRef<str>>(lists: &[S], sloppy: bool) -> FsResult<MountOptions> {
        let mut options = MountOptions::default();
        for option in lists.iter().flat_map(|l| l.as_ref().split(',')).filter(|o| !o.is_empty()) {
            match options.set(option) {
                Err(e) if sloppy && e.code == FsCode::NotSupported => {}
                other => other?,
            }
        }
        Ok(options)
    }

    fn set(&mut self, option: &str) -> FsResult<()> {
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option, None),
        };
        match (key, value) {
            ("ro", None) => self.read_only = true,
            ("allow_other", None) => self.allow_other = true,
            ("noatime", None) => self.access_times = AccessTimes::Never,
            ("nosuid", None) => self.no_suid = true,
            ("nodev", None) => self.no_dev = true,
            ("noexec", None) => self.no_exec = true,
            ("flock", None) => self.local_locks = false,
            // Lustre refuses locks with `noflock`; nobody is helped by that.
            ("localflock" | "noflock", None) => self.local_locks = true,
            ("dirsync", None) => self.dir_sync = true,
            ("io_uring", None) => self.requests = Requests::ByRings,
            ("noio_uring", None) => self.requests = Requests::ByDevice,
            ("soft", None) => self.patience = Patience::Default,
            ("hard", None) => self.patience = Patience::Hard,
            ("entry_timeout", Some(v)) => self.entry_timeout = seconds(key, v)?,
            ("attr_timeout", Some(v)) => self.attr_timeout = seconds(key, v)?,
            ("timeout", Some(v)) => self.patience = Patience::Soft(seconds(key, v)?),
            ("connect_timeout", Some(v)) => self.connect_timeout = Some(seconds(key, v)?),
            ("dirty_mb", Some(v)) => self.dirty_bytes = Some(mib(key, v)?),
            ("cache_mb", Some(v)) => self.cache_bytes = Some(mib(key, v)?),
            ("readahead_mb", Some(v)) => self.readahead_bytes = Some(mib(key, v)?),
            ("comment", Some(_)) => {}
            _ if key.starts_with("x-") || key.starts_with("X-") => {}
            (_, None) if ACCEPTED.contains(&key) => self.undo(key),
            _ => {
                let shown: String = option.chars().take(64).collect();
                return Err(FsError::new(FsCode::NotSupported, format!("unknown mount option {shown:?}"))
                    .with_hint(format!("options are {EFFECTIVE}, and those of mount(8) for fstab")));
            }
        }
        Ok(())
    }

    /// The later of two contradicting options wins: these take another back.
    fn undo(&mut self, key: &str) {
        match key {
            "rw" => self.read_only = false,
            "async" => self.dir_sync = false,
            "atime" | "relatime" => self.access_times = AccessTimes::Relative,
            "strictatime" => self.access_times = AccessTimes::Strict,
            "suid" => self.no_suid = false,
            "dev" => self.no_dev = false,
            "exec" => self.no_exec = false,
            "defaults" => {
                (self.read_only, self.no_suid, self.no_dev, self.no_exec) = (false, false, false, false);
            }
            _ => {}
        }
    }
}

fn bad_value(key: &str, value: &str, rule: &str) -> FsError {
    let shown: String = value.chars().take(64).collect();
    FsError::new(FsCode::Invalid, format!("mount option {key}={shown:?} is not valid")).with_hint(rule)
}

fn seconds(key: &str, value: &str) -> FsResult<Duration> {
    match value.parse::<f64>() {
        Ok(s) if (0.0..=SECONDS_MAX).contains(&s) => Ok(Duration::from_secs_f64(s)),
        _ => Err(bad_value(key, value, "give seconds, for example 1 or 0.5")),
    }
}

fn mib(key: &str, value: &str) -> FsResult<u64> {
    match value.parse::<u64>() {
        Ok(n) if (1..=MIB_MAX).contains(&n) => Ok(n << 20),
        _ => Err(bad_value(key, value, "give whole MiB, from 1 to 1048576")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_fstab_lines_are_understood() {
        let got = MountOptions::parse(
            &[
                "rw,_netdev,nofail,nosuid,x-systemd.automount,x-systemd.mount-timeout=60",
                "flock,entry_timeout=0.5,hard",
            ],
            false,
        )
        .expect("valid");
        let want = MountOptions {
            no_suid: true,
            entry_timeout: Duration::from_millis(500),
            patience: Patience::Hard,
            ..MountOptions::default()
        };
        assert_eq!(got, want);
    }

    #[test]
    fn the_later_of_two_contradicting_options_wins() {
        assert!(!MountOptions::parse(&["ro,rw"], false).expect("valid").read_only);
        assert!(MountOptions::parse(&["rw", "ro"], false).expect("valid").read_only);
        assert!(MountOptions::parse(&["flock,localflock"], false).expect("valid").local_locks);
        assert!(!MountOptions::parse(&["noflock", "flock"], false).expect("valid").local_locks);
        assert!(!MountOptions::parse(&["nodev,defaults"], false).expect("valid").no_dev);
        let times = |list| MountOptions::parse(&[list], false).expect("valid").access_times;
        assert_eq!(times("rw"), AccessTimes::Relative);
        assert_eq!(times("strictatime,noatime"), AccessTimes::Never);
        assert_eq!(times("noatime,relatime"), AccessTimes::Relative);
        assert_eq!(times("noatime,strictatime"), AccessTimes::Strict);
    }

    #[test]
    fn unknown_options_are_named_unless_sloppy() {
        let err = MountOptions::parse(&["ro,alow_other"], false).expect_err("typo");
        assert!(err.message.contains("alow_other"), "{err}");
        assert!(err.hint.expect("hint").contains("allow_other"));
        assert!(MountOptions::parse(&["ro,alow_other"], true).expect("sloppy").read_only);
    }

    #[test]
    fn bad_values_are_refused_even_when_sloppy() {
        for bad in ["attr_timeout=-1", "attr_timeout=nan", "timeout=soon", "dirty_mb=0", "dirty_mb=1.5", "cache_mb="] {
            let err = MountOptions::parse(&[bad], true).expect_err(bad);
            assert_eq!(err.code, FsCode::Invalid, "{bad}");
            assert!(err.hint.is_some());
        }
        assert!(MountOptions::parse(&["ro=1"], false).is_err());
        assert!(MountOptions::parse(&["attr_timeout"], false).is_err());
    }
}
