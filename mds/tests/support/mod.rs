//! The real program in a directory of the test's own.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_sateen-mds");
/// Longest it may take to serve, or to end.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Its configuration, with the MDS directory `dir/mds`.
pub fn config(dir: &Path, port: u16) -> std::path::PathBuf {
    let file = dir.join(format!("mds-{port}.toml"));
    let text = format!("listen = \"127.0.0.1:{port}\"\ndir = {:?}\n", dir.join("mds"));
    std::fs::write(&file, text).expect("writes");
    file
}

/// Where ports are looked for: below those of outgoing connections, one of which (even one to itself) could take the port of a
/// server that was killed.
const PORTS: std::ops::Range<u16> = 11_000..20_000;

/// A port that nobody has now.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() as u16).wrapping_mul(61);
    let mut ports =
        PORTS.map(|_| first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u16 + PORTS.start);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// A server process; killed when dropped.
pub struct Server(Child);

impl Server {
    /// Returns when it says that it is ready.
    pub fn start(config: &Path) -> Server {
        let spawned = Command::new(PROGRAM).arg("--config").arg(config).stderr(Stdio::piped()).spawn();
        let mut server = Server(spawned.expect("starts"));
        let lines = BufReader::new(server.0.stderr.take().expect("piped")).lines();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The reader stays to keep the pipe empty; the test may have gone.
                let _ = tell.send(line);
            }
        });
        let start = Instant::now();
        let mut seen = String::new();
        while let Ok(line) = told.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
            seen.push_str(&line);
            if line.contains("ready") {
                return server;
            }
        }
        panic!("not ready: {seen}");
    }

    /// As with `kill -9`.
    pub fn kill(&mut self) {
        self.0.kill().expect("kills");
        self.0.wait().expect("ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
