//! A raw socket on loopback, framed by hand, between two processes.
//!
//! A frame is a 16-byte header (operation, payload length, eight unused bytes) and, with [`Op::Write`] from the client
//! or in the answer to [`Op::Read`], a payload. Every frame is answered by one frame. No request is decoded, checked or
//! stored: nothing that moves bytes between two processes through the kernel's TCP can be faster. Payloads come from and
//! go to more memory than the caches of a core hold, as the bytes of files do.

use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::bench::Bench;
use crate::data::BLOCK;
use crate::peer::Remote;
use crate::rate::{gb_per_second, per_second};

/// Frames under way at once, over all connections.
const IN_FLIGHT: u64 = 8;
/// Numbers of connections that are tried; the best counts.
const CONNECTIONS: [u64; 3] = [1, 2, 4];
/// Small frames: how many connections, and how many frames under way on each.
const SMALL: (u64, u64) = (4, 4);
/// Payload of a small frame.
const SMALL_BYTES: usize = 4096;
/// Memory on each side that payloads come from and go to, in blocks.
const RING: usize = 32;
/// Bytes of a header.
const HEADER: usize = 16;

/// What a frame asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// Answer with a payload of this length.
    Read,
    /// Take this payload.
    Write,
}

/// 1 MiB answers, in GB/s.
pub fn read(bytes: u64) -> anyhow::Result<f64> {
    best(Op::Read, bytes)
}

/// 1 MiB requests, in GB/s.
pub fn write(bytes: u64) -> anyhow::Result<f64> {
    best(Op::Write, bytes)
}

/// 4 KiB answers per second.
pub fn round_trips(bench: &Bench) -> anyhow::Result<f64> {
    let count = u64::from(bench.sizes.random_ios) * 2;
    let (_remote, address) = Remote::tcp()?;
    let took = exchange(address, Op::Read, SMALL_BYTES, count, SMALL.0, SMALL.1)?;
    Ok(per_second(count, took))
}

fn best(op: Op, bytes: u64) -> anyhow::Result<f64> {
    let (_remote, address) = Remote::tcp()?;
    let mut best = 0.0;
    for connections in CONNECTIONS {
        let took = exchange(address, op, BLOCK, bytes / BLOCK as u64, connections, IN_FLIGHT / connections)?;
        best = f64::max(best, gb_per_second(bytes, took));
    }
    Ok(best)
}

/// `count` frames over `connections`, `window` under way on each.
fn exchange(
    address: SocketAddr,
    op: Op,
    payload: usize,
    count: u64,
    connections: u64,
    window: u64,
) -> anyhow::Result<std::time::Duration> {
    let mut ready = Vec::new();
    for _ in 0..connections {
        let mut socket = connect(address)?;
        let mut ring = Ring::new();
        // The other side's memory is there once it has answered.
        client(&mut socket, &mut ring, op, payload, 1, 1)?;
        ready.push((socket, ring));
    }
    let start = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = ready
            .iter_mut()
            .map(|(socket, ring)| scope.spawn(move || client(socket, ring, op, payload, count / connections, window)))
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(start.elapsed())
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect(address).context("cannot reach the other process")?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Asks `count` times, never waiting for an answer while fewer than `window` are awaited.
fn client(
    socket: &mut TcpStream,
    ring: &mut Ring,
    op: Op,
    payload: usize,
    count: u64,
    window: u64,
) -> anyhow::Result<()> {
    let (mut asked, mut answered) = (0, 0);
    while answered < count {
        while asked < count && asked - answered < window {
            let body = if op == Op::Write { ring.next(payload) } else { &mut [] };
            send(socket, op, payload, body)?;
            asked += 1;
        }
        let (_, len) = receive_header(socket)?.context("the other process has closed the connection")?;
        let expected = if op == Op::Read { payload } else { 0 };
        ensure!(len == expected, "an answer has {len} bytes");
        socket.read_exact(ring.next(len))?;
        answered += 1;
    }
    Ok(())
}

/// Body of the other process: answers every connection until the standard input ends.
pub fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    println!("{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                if let Err(e) = answer(socket) {
                    eprintln!("raw TCP: {e:#}");
                }
            });
        }
    });
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn answer(mut socket: TcpStream) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let mut ring = Ring::new();
    while let Some((op, len)) = receive_header(&mut socket)? {
        match op {
            Op::Read => send(&mut socket, op, len, ring.next(len))?,
            Op::Write => {
                socket.read_exact(ring.next(len))?;
                send(&mut socket, op, 0, &[])?;
            }
        }
    }
    Ok(())
}

/// Memory that is used in turn.
struct Ring {
    memory: Vec<u8>,
    at: usize,
}

impl Ring {
    /// Written once, so that every page is there.
    fn new() -> Ring {
        Ring { memory: vec![0x5a; RING * BLOCK], at: 0 }
    }

    /// The next `len` bytes, at most a block.
    fn next(&mut self, len: usize) -> &mut [u8] {
        if self.at + len > self.memory.len() {
            self.at = 0;
        }
        self.at += len;
        &mut self.memory[self.at - len..self.at]
    }
}

/// Writes a header that says `len`, and `payload`, in one call where the kernel takes it.
fn send(socket: &mut TcpStream, op: Op, len: usize, payload: &[u8]) -> anyhow::Result<()> {
    let header = header(op, len);
    let sent = socket.write_vectored(&[IoSlice::new(&header), IoSlice::new(payload)])?;
    if sent < HEADER {
        socket.write_all(&header[sent..])?;
    }
    socket.write_all(&payload[sent.saturating_sub(HEADER)..])?;
    Ok(())
}

fn header(op: Op, len: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = if op == Op::Write { 1 } else { 0 };
    header[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    header
}

/// Next header; `None` at the end of the connection.
fn receive_header(socket: &mut TcpStream) -> anyhow::Result<Option<(Op, usize)>> {
    let mut header = [0; HEADER];
    let got = socket.read(&mut header)?;
    if got == 0 {
        return Ok(None);
    }
    socket.read_exact(&mut header[got..])?;
    let op = if header[0] == 1 { Op::Write } else { Op::Read };
    let [_, _, _, _, a, b, c, d, ..] = header;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    ensure!(len <= BLOCK, "a frame of {len} bytes");
    Ok(Some((op, len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_answered_over_any_number_of_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                std::thread::spawn(move || answer(socket));
            }
        });
        for connections in CONNECTIONS {
            for (op, payload) in [(Op::Read, BLOCK), (Op::Write, BLOCK), (Op::Read, SMALL_BYTES), (Op::Write, 0)] {
                exchange(address, op, payload, 16, connections, IN_FLIGHT / connections).expect("all answered");
            }
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (server, _) = listener.accept().expect("connected");
        client.write_all(&header(Op::Write, BLOCK + 1)).expect("sent");
        assert!(answer(server).is_err());
    }
}
