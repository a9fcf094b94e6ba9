//! Answers with data in pieces: the kernel gathers them from where the client has them cached.
//!
//! fuser takes the data of a reply as one slice, for which the chunks of a read would have to be copied together. So
//! answers of several pieces are written to the connection here, in the kernel's format: a `fuse_out_header` and the data,
//! in one writev(2).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use fuser::{ReplyData, RequestId};
use sateen_types::Payload;

/// `fuse_out_header` of linux/fuse.h: length of the answer, error, number of the request; in the machine's byte order.
const HEADER_BYTES: usize = 16;
/// Pieces of one answer: a 1 MiB read of the smallest chunks has 17. The kernel takes 1024 with the header.
const PIECES_MAX: usize = 64;

/// Where answers go.
#[derive(Clone, Debug)]
pub struct Answers {
    connection: Arc<OwnedFd>,
}

impl Answers {
    /// Answers to requests that are read from `connection`.
    pub fn new(connection: &OwnedFd) -> io::Result<Answers> {
        Ok(Answers { connection: Arc::new(connection.try_clone()?) })
    }

    /// Answers a read. `reply` is that of request number `unique`.
    pub fn data(&self, unique: RequestId, reply: ReplyData, data: Payload) {
        if !(2..=PIECES_MAX).contains(&data.pieces().count()) {
            return reply.data(&data.into_bytes());
        }
        let header = header(data.len(), unique.0);
        let pieces: Vec<IoSlice<'_>> = std::iter::once(IoSlice::new(&header)).chain(slices(&data)).collect();
        match rustix::io::writev(self.connection.as_fd(), &pieces) {
            // Dropped, it would answer again. What it holds is a count on the connection, which therefore stays open until
            // the process ends; the kernel is done with it when it is unmounted.
            Ok(_) => std::mem::forget(reply),
            // Short of memory, perhaps. The request still waits, unless the mount is gone.
            Err(error) => {
                tracing::debug!(%error, unique = unique.0, "an answer in pieces was not taken; sending it in one");
                reply.data(&data.into_bytes());
            }
        }
    }
}

fn slices(data: &Payload) -> impl Iterator<Item = IoSlice<'_>> {
    data.pieces().map(|piece| IoSlice::new(piece))
}

fn header(data_len: usize, unique: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&((HEADER_BYTES + data_len) as u32).to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_what_the_kernel_expects() {
        let header = header(1 << 20, 0x0102_0304_0506_0708);
        assert_eq!(header[..4], ((1u32 << 20) + 16).to_ne_bytes());
        assert_eq!(header[4..8], [0; 4], "no error");
        assert_eq!(header[8..], 0x0102_0304_0506_0708u64.to_ne_bytes());
    }
}
