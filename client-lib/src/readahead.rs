//! When to read ahead, and how far. A pure state machine, one per open file.
//!
//! It recognises up to [`STREAMS_MAX`] readers of one open file: *sequential* ones, and *strided* ones, whose reads begin
//! at a constant distance, forward or backward. What fits no pattern is random: nothing is read ahead of it, and nothing
//! but what it asks for is fetched. A kernel that reads for a memory map fetches small clusters around random places;
//! they end before a reader is taken for sequential.
//!
//! A window (the bytes to have ready beyond a reader) is never larger than what that reader has read in a row, so a reader
//! that stops or jumps wastes at most as much as it used. Within that it grows while the reader meets data that is still
//! on its way and a larger window gets it there sooner ([`growth`]). It shrinks when data that was read in advance is
//! gone before the reader comes: then the caches hold less than the windows.

mod growth;

use std::ops::Range;
use std::time::Instant;

use sateen_types::limits::CHUNK_BYTES_MAX;

use self::growth::Growth;

/// What a program says about how it will read, as in posix_fadvise(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing special: patterns are recognised. Holds for the whole open file.
    Normal,
    /// In rising order: read ahead from the first read on, with larger windows. Holds for the whole open file.
    Sequential,
    /// In no order: nothing is read ahead. Holds for the whole open file.
    Random,
    /// The range will be needed soon: it is fetched in the background.
    WillNeed,
    /// The range will not be needed soon: what is cached of it is dropped. What was written is kept until it is stored.
    DontNeed,
    /// What is read is needed once: it is not kept. Holds for the whole open file.
    NoReuse,
}

/// Readers told apart in one open file.
const STREAMS_MAX: usize = 4;
/// Reads remembered that fit no stream: the third of a strided reader among [`STREAMS_MAX`] finds its first two.
const RECENT_MAX: usize = 2 * STREAMS_MAX;
/// First window of a reader that begins at the start of the file: a small file is read with one more request.
const WINDOW_FIRST: u64 = 512 << 10;
/// A window grows up to this size, or twice this with [`Advice::Sequential`], without the reader having to wait first.
const WINDOW_FREE: u64 = 2 << 20;
/// Reads in a row, beginning elsewhere than at the start of the file, that make a reader.
const READS_TRUSTED: u32 = 4;
/// So much read in a row makes a reader of the whole file, which is worth fetching from a repository in advance.
const RUN_TRUSTED: u64 = 1 << 20;
/// A read this near to the expected offset still follows a reader that has read as much: a kernel hands out in
/// parallel what it reads ahead, so its requests arrive a little out of order.
const NEAR: u64 = 2 << 20;
/// Read-ahead ends at a multiple of this, so that it consists of whole requests to OSTs.
const ALIGN: u64 = 1 << 20;
/// A strided reader is read ahead of if no more than this many times of what it asks for is fetched for it.
const WASTE_MAX: u64 = 16;
/// Most reads a strided reader is ahead of.
const STRIDES_AHEAD_MAX: u64 = 32;

/// What a reader did so far.
#[derive(Debug)]
pub(crate) struct Readahead {
    max: u64,
    hint: Advice,
    /// Least recently used first.
    streams: Vec<Stream>,
    /// Offset and length of reads that fit no stream, oldest first.
    recent: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Stream {
    /// Offset of its last read.
    last: u64,
    /// Where a following read would begin.
    next: u64,
    /// Distance between its reads; `None` if each begins where the one before ends.
    stride: Option<i64>,
    reads: u32,
    /// Bytes read in a row.
    run: u64,
    window: u64,
    growth: Growth,
    /// Asked for in advance: sequential, up to this offset; strided, the last read that was.
    ahead: u64,
}

/// What a read asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Whether whole chunks are worth reading: neighbours will be wanted.
    pub whole_chunks: bool,
    /// Read these in advance.
    pub prefetch: Vec<Range<u64>>,
    /// Whether the beginning of the read was asked for in advance.
    pub expected: bool,
    /// Whether so much was read in a row that all that follows is likely to be wanted.
    pub in_a_row: bool,
}

/// What a reader met where data had been asked for in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// It is still on its way.
    Loading,
    /// It is not there (any more).
    Gone,
}

impl Readahead {
    /// A reader that begins at the start of the file is expected to go on. Windows have at most `max` bytes.
    pub fn new(max: u64) -> Readahead {
        Readahead { max, hint: Advice::Normal, streams: Vec::new(), recent: Vec::new() }
    }

    /// Takes in advice about the whole open file.
    pub fn advise(&mut self, advice: Advice) {
        self.hint = advice;
        self.streams.clear();
        self.recent.clear();
    }

    /// What the program said.
    pub fn hint(&self) -> Advice {
        self.hint
    }

    /// Records a read of `[offset, offset + len)` of a file of `size` bytes, while `room` bytes may be read in advance.
    pub fn on_read(&mut self, offset: u64, len: u64, size: u64, room: u64) -> Plan {
        let len = len.min(size.saturating_sub(offset));
        let random = Plan { whole_chunks: false, prefetch: Vec::new(), expected: false, in_a_row: false };
        if self.hint == Advice::Random || len == 0 {
            return random;
        }
        let followed = self.follow(offset, len).map(|stream| (stream.was_expected(offset), stream));
        let recognised = || self.recognise(offset, len).map(|stream| (false, stream));
        let Some((expected, mut stream)) = followed.or_else(recognised) else {
            return random;
        };
        self.absorb(&mut stream);
        let from_start = stream.stride.is_none() && stream.run == stream.next;
        let hinted = self.hint == Advice::Sequential;
        let trusted = from_start || hinted || stream.reads >= READS_TRUSTED;
        let mut prefetch = Vec::new();
        if trusted && self.max > 0 {
            let free = if hinted { WINDOW_FREE * 2 } else { WINDOW_FREE };
            let first = if from_start || hinted { WINDOW_FIRST } else { 0 };
            stream.window = stream.window.max(stream.run.clamp(first, free)).min(self.max);
            match stream.stride {
                None => prefetch.extend(stream.go_on(size, room)),
                Some(stride) => prefetch = stream.stride_on(stride, len, size, room.min(self.max)),
            }
        }
        let in_a_row = trusted && stream.stride.is_none() && stream.reads > 1 && stream.run >= RUN_TRUSTED;
        let whole_chunks = trusted && stream.stride.is_none_or(|stride| is_dense(stride, len));
        self.streams.push(stream);
        Plan { whole_chunks, prefetch, expected, in_a_row }
    }

    /// What the last read that [`Plan::expected`] data met at `now`. It was at `offset`.
    pub fn on_met(&mut self, offset: u64, met: Met, now: Instant) {
        let max = self.max;
        // The stream of the last read is the last; another thread may have read since, so look.
        let Some(stream) = self.streams.iter_mut().rev().find(|s| s.last == offset) else { return };
        match met {
            Met::Loading => {
                let window = stream.growth.on_wait(stream.window, stream.run, now);
                stream.window = window.min(max).min(stream.run.max(WINDOW_FIRST));
            }
            Met::Gone => {
                stream.window = (stream.window / 2).max(WINDOW_FIRST.min(max));
                stream.growth.rest(stream.window, stream.run);
                stream.ahead = if stream.stride.is_some() { stream.last } else { stream.next };
            }
        }
    }

    /// Takes the stream out that a read follows, with the read counted.
    fn follow(&mut self, offset: u64, len: u64) -> Option<Stream> {
        let exactly = |s: &Stream| match s.stride {
            None => s.next == offset,
            Some(stride) => s.last.checked_add_signed(stride) == Some(offset),
        };
        let nearly = |s: &Stream| s.stride.is_none() && s.run >= NEAR && s.next.abs_diff(offset) <= NEAR;
        let found = self.streams.iter().rposition(exactly).or_else(|| self.streams.iter().rposition(nearly))?;
        let mut stream = self.streams.remove(found);
        let end = offset + len;
        stream.run += if stream.stride.is_some() { len } else { end.saturating_sub(stream.next) };
        stream.next = if stream.stride.is_some() { end } else { stream.next.max(end) };
        stream.last = offset;
        stream.reads = stream.reads.saturating_add(1);
        if stream.stride.is_some() && stream.reads <= READS_TRUSTED {
            // Sequential readers at equal distances look like one strided reader, until each reads for the second time.
            self.remember(offset, len);
        }
        Some(stream)
    }

    /// Adds reads that came too early for a sequential reader.
    fn absorb(&mut self, stream: &mut Stream) {
        if stream.stride.is_some() {
            return;
        }
        while let Some(early) = self.recent.iter().position(|r| r.0 == stream.next) {
            let (_, had) = self.recent.remove(early);
            (stream.next, stream.run, stream.reads) = (stream.next + had, stream.run + had, stream.reads + 1);
        }
    }

    fn remember(&mut self, offset: u64, len: u64) {
        if self.recent.len() == RECENT_MAX {
            self.recent.remove(0);
        }
        self.recent.push((offset, len));
    }

    /// A read that follows no stream: it may make one with reads that followed none either.
    fn recognise(&mut self, offset: u64, len: u64) -> Option<Stream> {
        let end = offset + len;
        let new = |stride: Option<i64>, reads, run| {
            let ahead = if stride.is_some() { offset } else { 0 };
            Some(Stream { last: offset, next: end, stride, reads, run, window: 0, growth: Growth::default(), ahead })
        };
        let begun = self.recent.iter().rposition(|(at, had)| at + had == offset);
        let stream = if offset == 0 || self.hint == Advice::Sequential {
            new(None, 1, len)
        } else if let Some(before) = begun {
            let (_, had) = self.recent.remove(before);
            new(None, 2, had + len)
        } else if let Some(stride) = self.stride_to(offset, len) {
            self.remember(offset, len);
            new(Some(stride), 3, 3 * len)
        } else {
            self.remember(offset, len);
            None
        };
        if stream.is_some() && self.streams.len() == STREAMS_MAX {
            self.streams.remove(0);
        }
        stream
    }

    /// The distance that lies twice between this read and two recent ones of the same length.
    fn stride_to(&self, offset: u64, len: u64) -> Option<i64> {
        let same = || self.recent.iter().rev().filter(|r| r.1 == len).map(|r| r.0);
        same().find_map(|one| {
            let stride = i64::try_from(i128::from(offset) - i128::from(one)).ok().filter(|s| *s != 0)?;
            let first = one.checked_add_signed(stride.checked_neg()?)?;
            same().any(|at| at == first).then_some(stride)
        })
    }
}

/// Whether whole chunks may be fetched for reads of `len` bytes at this distance.
fn is_dense(stride: i64, len: u64) -> bool {
    stride.unsigned_abs().min(u64::from(CHUNK_BYTES_MAX)) <= len.saturating_mul(WASTE_MAX)
}

impl Stream {
    fn was_expected(&self, offset: u64) -> bool {
        match self.stride {
            None => offset < self.ahead,
            Some(stride) if stride > 0 => offset <= self.ahead,
            Some(_) => offset >= self.ahead,
        }
    }

    /// What a sequential reader wants next. Asked for in pieces of half a window, not a little with every read.
    fn go_on(&mut self, size: u64, room: u64) -> Option<Range<u64>> {
        let from = self.ahead.max(self.next);
        if from - self.next > self.window / 2 {
            return None;
        }
        let wanted = self.next.saturating_add(self.window);
        let whole = wanted - wanted % ALIGN;
        let to = if whole > from { whole } else { wanted };
        let to = to.min(size).min(from.saturating_add(room));
        (from < to).then(|| {
            self.ahead = to;
            from..to
        })
    }

    /// The reads a strided reader will make next, as far as the window and `room` reach.
    fn stride_on(&mut self, stride: i64, len: u64, size: u64, room: u64) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        if !is_dense(stride, len) {
            return ranges;
        }
        let done =
            if self.was_expected(self.last) { self.ahead.abs_diff(self.last) / stride.unsigned_abs() } else { 0 };
        let wanted = (self.window / len).clamp(1, STRIDES_AHEAD_MAX);
        if done > wanted / 2 {
            return ranges;
        }
        let mut left = room;
        for number in done + 1..=wanted {
            let at = i64::try_from(number).ok().and_then(|n| self.last.checked_add_signed(stride.checked_mul(n)?));
            let Some(at) = at.filter(|at| *at < size && len <= left) else { break };
            left -= len;
            ranges.push(at..at.saturating_add(len).min(size));
            self.ahead = at;
        }
        ranges
    }
}

#[cfg(test)]
mod tests;
