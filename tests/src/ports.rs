//! Free loopback ports that no other test takes.
//!
//! Binding port 0 and closing it again leaves a gap in which another test, or an outgoing connection, gets the port. So
//! ports come from below the kernel's range for outgoing connections, and each is locked for as long as its [`Port`] lives:
//! by an abstract Unix socket of its name, which the kernel removes with the process and which leaves nothing on disk.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports that are given out: above the well-known ones, below Linux's default range of outgoing connections (32768).
const FIRST: u16 = 21_000;
/// How many.
const COUNT: u16 = 8_000;

/// Next one to try; starts at a place that depends on the process, so that tests rarely meet.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// One port, ours until dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: UnixListener,
}

impl Port {
    /// A free port of the loopback address.
    pub fn free() -> Port {
        Port::free_run(1).remove(0)
    }

    /// `count` consecutive free ports.
    pub fn free_run(count: u16) -> Vec<Port> {
        let start = (std::process::id() as u16).wrapping_mul(61);
        for _ in 0..COUNT {
            let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (COUNT - count);
            let run: Option<Vec<Port>> = (0..count).map(|i| Port::take(FIRST + offset + i)).collect();
            if let Some(run) = run {
                return run;
            }
        }
        panic!("no {count} free ports in {FIRST}..{}", FIRST + COUNT);
    }

    fn take(number: u16) -> Option<Port> {
        let name = UnixAddr::from_abstract_name(format!("sateen-test-port-{number}")).ok()?;
        let lock = UnixListener::bind_addr(&name).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Port { number, _lock: lock })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}
