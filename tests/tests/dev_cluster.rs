//! `sateen dev up` and `down`, as a newcomer types them, with private directories and ports.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sateen_tests::guard::Guard;
use sateen_tests::mount::{detach, is_mounted};
use sateen_tests::ports::Port;
use sateen_tests::scratch::Scratch;
use sateen_tests::{Done, bins, run};

/// Longest one `up` or `down` may take.
const DEV: Duration = Duration::from_secs(120);

/// A development cluster of its own: MDS, two OSSes, worker and S3 server on consecutive ports.
struct Dev {
    dir: PathBuf,
    mount: PathBuf,
    ports: Vec<Port>,
    _guard: Guard,
    scratch: Scratch,
}

impl Dev {
    fn new(label: &str) -> Dev {
        let scratch = Scratch::new(label);
        let (dir, mount) = (scratch.path().join("dev"), scratch.path().join("mnt"));
        let sateen = bins::path("sateen");
        let guard = Guard::new(
            r#""$2" dev down --dir "$3"; umount -l "$4" 2>/dev/null; rm -rf --one-file-system "$5""#,
            &[sateen.as_os_str(), dir.as_os_str(), mount.as_os_str(), scratch.path().as_os_str()],
        );
        Dev { dir, mount, ports: Port::free_run(5), _guard: guard, scratch }
    }

    fn dev(&self, verb: &str, more: &[&str]) -> Done {
        let mut args: Vec<OsString> = vec!["dev".into(), verb.into(), "--dir".into(), self.dir.clone().into()];
        args.extend(more.iter().map(OsString::from));
        run(Command::new(bins::path("sateen")).args(args).current_dir(self.scratch.path()), DEV)
    }

    fn up(&self) -> Done {
        let mount = self.mount.to_string_lossy().into_owned();
        self.dev("up", &["--mount", &mount, "--base-port", &self.ports[0].number().to_string()])
    }

    /// Processes whose command line names our directory.
    fn processes(&self) -> Vec<String> {
        processes_naming(self.scratch.path())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.dev("down", &[]);
        detach(&self.mount);
    }
}

fn processes_naming(path: &Path) -> Vec<String> {
    let needle = path.to_string_lossy().into_owned();
    let me = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if id == me || !id.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        // The guard names it, too, and is not a part of the cluster.
        if line.contains(&needle) && !line.contains("guard") {
            found.push(format!("{id} {line}"));
        }
    }
    found
}

#[track_caller]
fn ok(done: Done) -> Done {
    assert!(done.success(), "{done}");
    done
}

#[test]
fn up_twice_down_and_up_again_keeps_the_data() {
    let dev = Dev::new("dev");
    let first = ok(dev.up());
    assert!(is_mounted(&dev.mount), "{first}");
    assert!(first.stdout.contains(&*dev.mount.to_string_lossy()) || first.stdout.contains("mnt"), "{first}");
    std::fs::write(dev.mount.join("kept"), b"kept data").expect("write");
    let before = dev.processes();
    assert_eq!(before.len(), 6, "one MDS, two OSSes, S3 server, worker, mount: {before:#?}");
    let sample = dev.mount.join("dataset/measurements/large.bin");
    let bytes = std::fs::read(&sample).expect("an object of the sample bucket");
    assert_eq!(bytes.len(), 32 << 20, "all of it is fetched when it is read");

    ok(dev.up());
    assert_eq!(dev.processes(), before, "a second `up` starts nothing anew");
    assert_eq!(std::fs::read(dev.mount.join("kept")).expect("read"), b"kept data");

    ok(dev.dev("down", &[]));
    assert!(!is_mounted(&dev.mount));
    assert_eq!(dev.processes(), Vec::<String>::new(), "`down` leaves no process");
    ok(dev.dev("down", &[]));

    ok(dev.up());
    assert_eq!(std::fs::read(dev.mount.join("kept")).expect("read"), b"kept data");
    assert!(std::fs::read(&sample).expect("still there") == bytes);
    ok(dev.dev("down", &[]));
    assert_eq!(dev.processes(), Vec::<String>::new());
}

#[test]
fn up_replaces_what_was_killed_and_status_says_what_is_missing() {
    let dev = Dev::new("dev-kill");
    ok(dev.up());
    std::fs::write(dev.mount.join("kept"), b"kept data").expect("write");
    let status = ok(dev.dev("status", &["--json"]));
    serde_json::from_str::<serde_json::Value>(&status.stdout).unwrap_or_else(|e| panic!("{e}: {status}"));

    let victims: Vec<PathBuf> = std::fs::read_dir(dev.dir.join("run"))
        .expect("pid files")
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "pid") && p.to_string_lossy().contains("oss"))
        .collect();
    assert_eq!(victims.len(), 2, "{victims:?}");
    let text = std::fs::read_to_string(&victims[0]).expect("a pid file");
    let pid: i32 = text.split_whitespace().next().and_then(|p| p.parse().ok()).expect("a process id comes first");
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id is positive");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
    let degraded = sateen_tests::wait::try_until(DEV, || (!dev.dev("status", &[]).success()).then_some(()));
    assert!(degraded.is_some(), "status stays good with an OSS killed");

    ok(dev.up());
    assert_eq!(dev.processes().len(), 6);
    assert_eq!(std::fs::read(dev.mount.join("kept")).expect("read"), b"kept data");
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_left_behind() {
    let dev = Dev::new("dev-port");
    let _foreign = TcpListener::bind(dev.ports[0].address()).expect("our port is free");
    let done = dev.up();
    assert!(!done.success(), "{done}");
    assert!(done.stderr.contains(&dev.ports[0].number().to_string()), "{done}");
    assert!(done.stderr.contains("error: ") && done.stderr.contains("hint: "), "{done}");
    assert!(!is_mounted(&dev.mount));
    assert_eq!(dev.processes(), Vec::<String>::new());
}
