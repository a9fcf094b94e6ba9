//! Every bound of a client, with its unit and its reason.

use std::time::Duration;

use sateen_types::limits::{BULK_BYTES_MAX, CHUNK_BYTES_MAX};
use sateen_types::{FsCode, FsError, FsResult};

use crate::atime::AccessTimes;

/// How a [`crate::Client`] behaves. `Options::default()` suits one machine with a few gigabytes of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long [`crate::Client::connect`] tries to reach the MDS, and how long one TCP connection may take.
    pub connect_timeout: Duration,
    /// How long one request may go unanswered before it is sent again.
    pub request_timeout: Duration,
    /// How long an operation goes on trying while a server does not answer. `None` waits for ever ("hard").
    pub retry_for: Option<Duration>,
    /// Most bytes that were written here and are not yet committed by their OSTs. Writers wait beyond it. While a
    /// chunk is on its way it is held twice: as written and as sent.
    pub dirty_bytes_max: u64,
    /// Most bytes of clean chunks that are kept for reading again.
    pub cache_bytes_max: u64,
    /// Largest read-ahead of one reader of a file, in bytes; 0 turns it off.
    pub readahead_bytes_max: u64,
    /// Most bytes being read ahead at a time, for all files. What has arrived counts as cached.
    pub readahead_total_bytes_max: u64,
    /// Usual payload of one bulk request, in bytes; 128 KiB to 4 MiB.
    pub bulk_bytes: usize,
    /// Bulk requests under way to one OST at a time.
    pub inflight_per_ost: usize,
    /// TCP connections to one OSS. One HTTP/2 connection is served by one core at each end.
    pub connections_per_oss: usize,
    /// How long written data may wait in the cache before it is sent and reported to the MDS without being asked for.
    pub writeback_interval: Duration,
    /// Uncommitted bytes of one file that start a commit in the background, so that memory for new writes comes free
    /// before writers have to wait for it.
    pub commit_bytes: u64,
    /// Which reads count, where a program's reads are told of ([`crate::File::accessed`]).
    pub access_times: AccessTimes,
    /// Changes of names in directories that this client has to itself are answered at once and told to the MDS within a
    /// moment: they are durable after [`crate::File::fsync`] or [`crate::Client::sync_names`], as on a local file system, and
    /// no sooner. Without it each is durable when it is answered.
    pub write_back_names: bool,
    /// How old attributes may be that [`crate::Client::lookup`] was given before they were asked for, because names are looked up
    /// in a row. Zero: it asks the MDS every time.
    pub attributes_ahead: Duration,
    /// Name shown by `sateen status`, at most 255 bytes.
    pub client_name: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            retry_for: Some(Duration::from_secs(60)),
            dirty_bytes_max: 256 << 20,
            cache_bytes_max: 256 << 20,
            readahead_bytes_max: 32 << 20,
            readahead_total_bytes_max: 64 << 20,
            bulk_bytes: 1 << 20,
            inflight_per_ost: 8,
            connections_per_oss: 2,
            writeback_interval: Duration::from_secs(5),
            commit_bytes: 32 << 20,
            access_times: AccessTimes::default(),
            write_back_names: false,
            attributes_ahead: Duration::ZERO,
            client_name: format!("pid {}", std::process::id()),
        }
    }
}

/// Below it a single large write could not be taken in pieces of a few chunks.
const DIRTY_BYTES_MIN: u64 = 4 << 20;
/// More is a mistake: it is read before anybody asked for it.
const READAHEAD_BYTES_MAX: u64 = 1 << 40;
/// Most bytes of a client's name.
const CLIENT_NAME_BYTES_MAX: usize = 255;
/// More is a mistake: each is a task and a socket.
const CONNECTIONS_PER_OSS_MAX: usize = 64;
/// More is a mistake: each holds a bulk payload.
const INFLIGHT_PER_OST_MAX: usize = 256;

impl Options {
    /// Refuses values outside their rules, naming the first.
    pub fn validate(&self) -> FsResult<()> {
        let refuse = |what: String, hint: String| Err(FsError::new(FsCode::Invalid, what).with_hint(hint));
        if self.dirty_bytes_max < DIRTY_BYTES_MIN || self.dirty_bytes_max > u64::from(u32::MAX) * 4096 {
            return refuse(
                format!("dirty_bytes_max {} is out of range", self.dirty_bytes_max),
                format!("use at least {DIRTY_BYTES_MIN} bytes"),
            );
        }
        if !(CHUNK_BYTES_MAX as usize..=BULK_BYTES_MAX).contains(&self.bulk_bytes) {
            return refuse(
                format!("bulk_bytes {} is out of range", self.bulk_bytes),
                format!("use {CHUNK_BYTES_MAX} to {BULK_BYTES_MAX} bytes"),
            );
        }
        if !(1..=INFLIGHT_PER_OST_MAX).contains(&self.inflight_per_ost) {
            return refuse(
                format!("inflight_per_ost {} is out of range", self.inflight_per_ost),
                format!("use 1 to {INFLIGHT_PER_OST_MAX}"),
            );
        }
        if !(1..=CONNECTIONS_PER_OSS_MAX).contains(&self.connections_per_oss) {
            return refuse(
                format!("connections_per_oss {} is out of range", self.connections_per_oss),
                format!("use 1 to {CONNECTIONS_PER_OSS_MAX}"),
            );
        }
        for (name, value) in [
            ("readahead_bytes_max", self.readahead_bytes_max),
            ("readahead_total_bytes_max", self.readahead_total_bytes_max),
        ] {
            if value > READAHEAD_BYTES_MAX {
                return refuse(format!("{name} {value} is out of range"), format!("use at most {READAHEAD_BYTES_MAX}"));
            }
        }
        for (name, value) in [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("writeback_interval", self.writeback_interval),
        ] {
            if value.is_zero() {
                return refuse(format!("{name} is 0"), "use at least one millisecond".into());
            }
        }
        if self.client_name.len() > CLIENT_NAME_BYTES_MAX {
            return refuse(
                format!("client_name has {} bytes", self.client_name.len()),
                format!("use at most {CLIENT_NAME_BYTES_MAX}"),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_each_bad_value_is_refused_with_a_hint() {
        Options::default().validate().expect("defaults");
        let bad: [fn(&mut Options); 7] = [
            |o| o.dirty_bytes_max = 0,
            |o| o.bulk_bytes = 5 << 20,
            |o| o.inflight_per_ost = 0,
            |o| o.readahead_bytes_max = u64::MAX,
            |o| o.connections_per_oss = 1000,
            |o| o.request_timeout = Duration::ZERO,
            |o| o.client_name = "x".repeat(256),
        ];
        for spoil in bad {
            let mut options = Options::default();
            spoil(&mut options);
            let err = options.validate().expect_err("refused");
            assert!(err.code == FsCode::Invalid && err.hint.is_some(), "{options:?}");
        }
    }
}
