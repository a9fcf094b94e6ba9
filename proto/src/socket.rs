//! How the sockets that carry the wire are set up, at both ends.

use std::os::fd::AsFd;

/// The congestion control of our connections, whatever the machine's default is.
///
/// Many machines have BBR for the sake of the internet. It paces: it spreads what is sent over time, by timers, at the
/// rate that it saw before. Bulk requests come in bursts, so that rate is too low, and the timers cost more than the
/// copying: on loopback the same lane carried 3 to 5 GB/s with BBR and 8 to 10 with CUBIC (docs/performance.md).
const CONGESTION_CONTROL: &str = "cubic";

/// Sets up a connected socket, or a listening one whose connections will inherit it. A kernel that does not have what
/// is wanted goes on with its default: slower, not wrong.
pub fn tune(socket: impl AsFd) {
    let _ = rustix::net::sockopt::set_tcp_congestion(&socket, CONGESTION_CONTROL);
    let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
}
