//! What a server says of itself to Prometheus.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::cluster::FS;

/// `sateen_mds_NAME` of the file system, from the MDS that has its metrics at `address`.
#[track_caller]
pub fn of_file_system(address: SocketAddr, name: &str) -> u64 {
    plain(address, &format!("sateen_mds_{name}{{fs=\"{FS}\"}}"))
}

/// A figure by its name with labels, as it stands on the page.
#[track_caller]
pub fn plain(address: SocketAddr, name: &str) -> u64 {
    let mut connection = TcpStream::connect(address).expect("metrics are served");
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("sent");
    let mut page = String::new();
    connection.read_to_string(&mut page).expect("answered");
    let line = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{page}"))
}
