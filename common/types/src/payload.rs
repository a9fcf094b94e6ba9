//! Bytes in pieces, as they arrived from the network or will leave for it. Cutting and joining copies nothing.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Buf, Bytes};

/// A run of bytes in any number of pieces, none of them empty.
#[derive(Clone, Default)]
pub struct Payload {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Payload {
    /// No bytes.
    pub fn new() -> Payload {
        Payload::default()
    }

    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// The pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }

    /// Takes the first piece away.
    pub fn pop(&mut self) -> Option<Bytes> {
        let piece = self.pieces.pop_front()?;
        self.len -= piece.len();
        Some(piece)
    }

    /// Takes the first `n` bytes away.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn split_to(&mut self, n: usize) -> Payload {
        assert!(n <= self.len, "{n} of {} bytes", self.len);
        let mut front = Payload::new();
        while front.len < n {
            let wanted = n - front.len;
            let first = self.pieces.front_mut().expect("fewer bytes were taken than there are");
            if first.len() <= wanted {
                front.push(self.pop().expect("was seen"));
            } else {
                front.push(first.split_to(wanted));
                self.len -= wanted;
            }
        }
        front
    }

    /// All bytes in one piece; copied only if they lie in several.
    pub fn into_bytes(mut self) -> Bytes {
        match self.pieces.len() {
            0 => Bytes::new(),
            1 => self.pieces.pop_front().expect("one piece"),
            _ => self.copy_to_bytes(self.len),
        }
    }
}

/// Sizes only: contents are the users', and long.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("len", &self.len).field("pieces", &self.pieces.len()).finish()
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, n: usize) {
        self.split_to(n);
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Payload {
        let mut payload = Payload::new();
        payload.push(bytes);
        payload
    }
}

impl Extend<Bytes> for Payload {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, pieces: I) {
        pieces.into_iter().for_each(|piece| self.push(piece));
    }
}

impl FromIterator<Bytes> for Payload {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Payload {
        let mut payload = Payload::new();
        payload.extend(pieces);
        payload
    }
}

/// The same bytes, however they are cut.
impl PartialEq for Payload {
    fn eq(&self, other: &Payload) -> bool {
        self.len == other.len && self.pieces.iter().flatten().eq(other.pieces.iter().flatten())
    }
}

impl Eq for Payload {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cutting_anywhere_keeps_every_byte_in_order(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..8),
            at in any::<prop::sample::Index>(),
        ) {
            let whole = pieces.concat();
            let mut payload: Payload = pieces.into_iter().map(Bytes::from).collect();
            prop_assert_eq!(payload.len(), whole.len());
            let at = at.index(whole.len() + 1);
            let front = payload.split_to(at);
            prop_assert_eq!((front.len(), payload.len()), (at, whole.len() - at));
            prop_assert!(front.pieces().chain(payload.pieces()).all(|p| !p.is_empty()));
            prop_assert_eq!(&front.into_bytes()[..], &whole[..at]);
            prop_assert_eq!(&payload.into_bytes()[..], &whole[at..]);
        }
    }

    #[test]
    fn one_piece_is_handed_over_as_it_is() {
        let bytes = Bytes::from(vec![7; 100]);
        let mut payload = Payload::from(bytes.clone());
        let half = payload.split_to(50).into_bytes();
        assert_eq!(half.as_ptr(), bytes.as_ptr());
        assert_eq!(payload.into_bytes().as_ptr(), bytes[50..].as_ptr());
    }
}
