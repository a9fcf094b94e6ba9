//! Networks of a test's own: a hub where the servers and the test are, and islands, each with one wire to the hub that can be
//! cut in several ways.
//!
//! ```text
//!   island 10.73.0.2 ── eth0 ═══ p2 ──┐
//!   island 10.73.0.3 ── eth0 ═══ p3 ──┴── bridge `hub` 10.73.0.1      (each side of ═══ is a namespace)
//! ```
//!
//! Invariant: nothing of it is known outside. The namespaces have no names, only processes and handles: when the test ends,
//! however it ends, the kernel takes them down with their wires and rules. So tests may run at the same time, with the same
//! addresses. Needs root, `ip` and `iptables`.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::command;

/// The hub's address; islands have the next ones.
const HUB: Ipv4Addr = Ipv4Addr::new(10, 73, 0, 1);
/// Longest one `ip` or `iptables` may take.
const SETUP: Duration = Duration::from_secs(60);

/// A network namespace. It lives as long as a process is in it or somebody has this.
#[derive(Debug, Clone)]
pub struct Namespace(Arc<OwnedFd>);

impl Namespace {
    /// That of this thread.
    fn current() -> Namespace {
        let file = File::open("/proc/thread-self/ns/net").expect("a thread has a network namespace");
        Namespace(Arc::new(file.into()))
    }

    /// A new one, in which nothing is but its loopback.
    fn new() -> Namespace {
        let made = std::thread::spawn(|| {
            // SAFETY: takes a number; changes this thread only, which ends here.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                panic!("no network namespace can be made, which needs root: {}", io::Error::last_os_error());
            }
            Namespace::current()
        });
        let namespace = made.join().expect("a network namespace");
        namespace.run("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    /// Moves this thread there, and whatever it starts from now on.
    fn enter(&self) {
        enter(self.0.as_raw_fd()).expect("a namespace that is held can be entered");
    }

    /// What `command` starts will be there.
    pub fn place(&self, command: &mut Command) {
        let namespace = Arc::clone(&self.0);
        // SAFETY: setns is async-signal-safe; the descriptor lives in the closure.
        unsafe { command.pre_exec(move || enter(namespace.as_raw_fd())) };
    }

    /// Runs a program there, which must succeed.
    #[track_caller]
    fn run(&self, program: &str, args: &[&str]) {
        let mut command = Command::new(program);
        self.place(&mut command);
        command::run_ok(command.args(args), SETUP);
    }

    /// As `ip` finds it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

fn enter(namespace: RawFd) -> io::Result<()> {
    // SAFETY: takes two numbers.
    if unsafe { libc::setns(namespace, libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where a process is: its address, and its namespace if that is not the test's.
#[derive(Debug, Clone)]
pub struct Site {
    /// Where it listens, or calls from.
    pub address: Ipv4Addr,
    /// `None`: that of whoever starts it.
    pub namespace: Option<Namespace>,
}

impl Default for Site {
    /// Beside the test, on its loopback.
    fn default() -> Site {
        Site { address: Ipv4Addr::LOCALHOST, namespace: None }
    }
}

impl Site {
    /// What `command` starts will be here.
    pub fn place(&self, command: &mut Command) {
        if let Some(namespace) = &self.namespace {
            namespace.place(command);
        }
    }
}

/// A hub, and this thread in it.
#[derive(Debug)]
pub struct Network {
    outside: Namespace,
    hub: Namespace,
    islands: Cell<u8>,
}

impl Network {
    /// Makes the hub and moves this thread into it until this is dropped.
    #[allow(clippy::new_without_default, reason = "it moves the thread: nothing that a default should do")]
    #[track_caller]
    pub fn new() -> Network {
        let (outside, hub) = (Namespace::current(), Namespace::new());
        hub.run("ip", &["link", "add", "hub", "type", "bridge"]);
        hub.run("ip", &["address", "add", &format!("{HUB}/24"), "dev", "hub"]);
        hub.run("ip", &["link", "set", "hub", "up"]);
        hub.enter();
        Network { outside, hub, islands: Cell::new(0) }
    }

    /// The hub as a site.
    pub fn hub(&self) -> Site {
        Site { address: HUB, namespace: Some(self.hub.clone()) }
    }

    /// A new island, whose wire is whole.
    #[track_caller]
    pub fn island(&self) -> Island {
        let number = self.islands.get() + 1;
        self.islands.set(number);
        let [a, b, c, d] = HUB.octets();
        let address = Ipv4Addr::new(a, b, c, d + number);
        let (namespace, port) = (Namespace::new(), format!("p{}", d + number));
        self.hub.run("ip", &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace.path()]);
        self.hub.run("ip", &["link", "set", &port, "master", "hub", "up"]);
        namespace.run("ip", &["address", "add", &format!("{address}/24"), "dev", "eth0"]);
        namespace.run("ip", &["link", "set", "eth0", "up"]);
        Island { hub: self.hub.clone(), namespace, port, address }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.outside.enter();
    }
}

/// How a wire is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It is pulled out at the hub; the island sees that.
    Unplugged,
    /// Everything is lost on the way, both ways.
    Both,
    /// What is sent to the island is lost.
    Deaf,
    /// What the island sends is lost.
    Mute,
}

impl Cut {
    /// Every one.
    pub const ALL: [Cut; 4] = [Cut::Unplugged, Cut::Both, Cut::Deaf, Cut::Mute];
}

/// A namespace with one wire to the hub.
#[derive(Debug)]
pub struct Island {
    hub: Namespace,
    namespace: Namespace,
    port: String,
    address: Ipv4Addr,
}

impl Island {
    /// The island as a site.
    pub fn site(&self) -> Site {
        Site { address: self.address, namespace: Some(self.namespace.clone()) }
    }

    /// Cuts its wire, which is whole.
    #[track_caller]
    pub fn cut(&self, cut: Cut) {
        let lose = |chain: &str, way: &str| self.namespace.run("iptables", &["-A", chain, way, "eth0", "-j", "DROP"]);
        match cut {
            Cut::Unplugged => self.hub.run("ip", &["link", "set", &self.port, "down"]),
            Cut::Both => {
                lose("INPUT", "-i");
                lose("OUTPUT", "-o");
            }
            Cut::Deaf => lose("INPUT", "-i"),
            Cut::Mute => lose("OUTPUT", "-o"),
        }
    }

    /// Makes its wire whole again, however it was cut.
    #[track_caller]
    pub fn heal(&self) {
        self.namespace.run("iptables", &["-F"]);
        self.hub.run("ip", &["link", "set", &self.port, "up"]);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, UdpSocket};

    use super::*;
    use crate::wait;

    /// A socket there.
    fn socket(site: &Site) -> UdpSocket {
        let (address, namespace) = (site.address, site.namespace.clone().expect("of its own"));
        let bound = std::thread::spawn(move || {
            namespace.enter();
            UdpSocket::bind((address, 0)).expect("bind")
        });
        let socket = bound.join().expect("a socket");
        socket.set_nonblocking(true).expect("nonblocking");
        socket
    }

    /// Whether something arrives that is sent again and again. That nothing does is seen when what is sent at the same time
    /// over a whole wire has come often enough.
    fn arrives(from: &UdpSocket, to: &UdpSocket, whole: (&UdpSocket, &UdpSocket)) -> bool {
        let address = |socket: &UdpSocket| -> SocketAddr { socket.local_addr().expect("bound") };
        let hears = |socket: &UdpSocket| std::iter::from_fn(|| socket.recv(&mut [0; 8]).ok()).count();
        hears(to);
        let mut rounds = 0;
        wait::until("one or the other", wait::SERVER, || {
            // A rule that drops what is sent says so.
            let _ = from.send_to(b"x", address(to));
            let _ = whole.0.send_to(b"x", address(whole.1));
            rounds += hears(whole.1);
            let heard = hears(to) > 0;
            (heard || rounds > 10).then_some(heard)
        })
    }

    #[test]
    fn each_cut_loses_what_it_says_and_healing_ends_it() {
        let network = Network::new();
        let (here, there) = (network.island(), network.island());
        let (hub, near, far) = (socket(&network.hub()), socket(&here.site()), socket(&there.site()));
        let witness = socket(&network.hub());
        let ways = || (arrives(&near, &hub, (&far, &witness)), arrives(&hub, &near, (&hub, &far)));
        assert_eq!(ways(), (true, true));
        for (cut, expected) in [
            (Cut::Unplugged, (false, false)),
            (Cut::Both, (false, false)),
            (Cut::Deaf, (true, false)),
            (Cut::Mute, (false, true)),
        ] {
            here.cut(cut);
            assert_eq!(ways(), expected, "{cut:?}");
            here.heal();
            wait::until("a wire that is whole", wait::SERVER, || (ways() == (true, true)).then_some(()));
        }
    }

    #[test]
    fn what_is_started_in_a_network_is_not_outside() {
        let before = std::fs::read_link("/proc/thread-self/ns/net").expect("a link");
        let network = Network::new();
        let inside = TcpListener::bind((HUB, 0)).expect("the hub's address is known here");
        drop((inside, network));
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").expect("a link"), before);
        TcpListener::bind((HUB, 0)).expect_err("outside nobody knows the hub's address");
    }
}
