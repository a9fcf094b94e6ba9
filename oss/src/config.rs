//! Settings of an OSS. Sizes are numbers of bytes or text such as `"10GiB"`.

use std::path::PathBuf;

use sateen_runtime::telemetry::LogConfig;
use sateen_runtime::{ByteSize, config};
use sateen_types::{FsCode, FsError, FsResult};
use serde::{Deserialize, Serialize};

use crate::scrub::ScrubConfig;

/// Port where nothing was said.
pub const PORT_DEFAULT: u16 = 9881;
/// Most OSTs of one OSS (the registration's bound).
const OSTS_MAX: usize = 64;
/// Longest address that the MDS keeps, in bytes.
const ADDRESS_BYTES_MAX: usize = 255;
/// Smallest cache that does not flush the index all the time.
const INDEX_CACHE_BYTES_MIN: u64 = 16 << 20;
/// Smallest segment that is worth a file.
const SEGMENT_BYTES_MIN: u64 = 16 << 20;

/// The configuration file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// HOST:PORT to listen on.
    pub listen: String,
    /// HOST:PORT under which clients reach this OSS. Empty: the address this machine has towards the MDS, with the
    /// port of `listen`.
    pub advertise: String,
    /// HOST:PORT of the MDS, or a list of them that are tried in order.
    #[serde(deserialize_with = "config::one_or_many")]
    pub mds: Vec<String>,
    /// The OSTs of this OSS.
    pub ost: Vec<OstConfig>,
    /// How data is stored.
    pub store: StoreConfig,
    /// How much is done at once.
    pub limits: LimitsConfig,
    /// How stored data is read again.
    pub scrub: ScrubConfig,
    /// HOST:PORT where Prometheus finds `/metrics`. Empty: nowhere.
    pub metrics_listen: String,
    /// Logging.
    pub log: LogConfig,
}

/// One OST.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OstConfig {
    /// Its directory.
    pub path: PathBuf,
    /// Bytes of data at most. Default: what the disk holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<ByteSize>,
    /// Whether an empty or missing directory becomes a new OST. `false` protects against a disk that is not mounted.
    #[serde(default = "yes")]
    pub create: bool,
}

/// How data is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Size of a segment file.
    pub segment: ByteSize,
    /// Bytes of each OST's disk that are left alone: room for the index and its log.
    pub reserve: ByteSize,
    /// Memory of the indexes, for the whole process.
    pub index_cache: ByteSize,
    /// Milliseconds after which changes are committed even if no client asks.
    pub commit_interval_ms: u64,
}

/// How much is done at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Requests that are received or worked on; the others wait in their connections.
    pub requests: usize,
    /// Payload of requests that are worked on.
    pub inflight_bytes: ByteSize,
    /// Threads that read and write data.
    pub io_threads: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: format!("[::]:{PORT_DEFAULT}"),
            advertise: String::new(),
            mds: vec!["127.0.0.1:9880".to_owned()],
            ost: Vec::new(),
            store: StoreConfig::default(),
            limits: LimitsConfig::default(),
            scrub: ScrubConfig::default(),
            metrics_listen: String::new(),
            log: LogConfig::default(),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            segment: ByteSize(1 << 30),
            reserve: ByteSize(64 << 20),
            index_cache: ByteSize(128 << 20),
            commit_interval_ms: 5000,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig { requests: 256, inflight_bytes: ByteSize(256 << 20), io_threads: 32 }
    }
}

impl Config {
    /// Checks every rule; the message lists all that are broken.
    pub fn validate(&self) -> FsResult<()> {
        let mut broken = Vec::new();
        let mut rule = |ok: bool, text: String| {
            if !ok {
                broken.push(text);
            }
        };
        let address = |a: &str| {
            a.len() <= ADDRESS_BYTES_MAX
                && a.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        rule(address(&self.listen), format!("listen = {:?} is not HOST:PORT", self.listen));
        rule(
            self.advertise.is_empty() || address(&self.advertise),
            format!("advertise = {:?} is not HOST:PORT of at most {ADDRESS_BYTES_MAX} bytes", self.advertise),
        );
        rule(!self.mds.is_empty(), "mds names no address".to_owned());
        for mds in &self.mds {
            rule(address(mds), format!("mds = {mds:?} is not HOST:PORT"));
        }
        rule(
            (1..=OSTS_MAX).contains(&self.ost.len()),
            format!("there are {} [[ost]] sections, 1 to {OSTS_MAX} are possible", self.ost.len()),
        );
        let mut paths: Vec<_> = self.ost.iter().map(|o| &o.path).collect();
        rule(paths.iter().all(|p| p.is_absolute()), "an [[ost]] path is not absolute".to_owned());
        paths.sort();
        rule(paths.windows(2).all(|w| w[0] != w[1]), "two [[ost]] sections have the same path".to_owned());
        let between = |n: u64, least: u64, most: u64| (least..=most).contains(&n);
        let StoreConfig { segment, reserve: _, index_cache, commit_interval_ms } = self.store;
        rule(
            between(index_cache.0, INDEX_CACHE_BYTES_MIN, 1 << 40),
            format!("store.index_cache = {index_cache} is not between 16MiB and 1TiB"),
        );
        rule(
            between(segment.0, SEGMENT_BYTES_MIN, 1 << 40),
            format!("store.segment = {segment} is not between 16MiB and 1TiB"),
        );
        rule(
            between(commit_interval_ms, 10, 3_600_000),
            format!("store.commit_interval_ms = {commit_interval_ms} is not between 10 and 3600000"),
        );
        rule(
            self.metrics_listen.is_empty() || address(&self.metrics_listen),
            format!("metrics_listen = {:?} is not HOST:PORT", self.metrics_listen),
        );
        let ScrubConfig { enabled: _, bytes_per_second, pause_between_passes_s } = self.scrub;
        rule(
            between(bytes_per_second.0, 64 << 10, 1 << 40),
            format!("scrub.bytes_per_second = {bytes_per_second} is not between 64KiB and 1TiB"),
        );
        rule(
            between(pause_between_passes_s, 0, 366 * 24 * 3600),
            format!("scrub.pause_between_passes_s = {pause_between_passes_s} is not between 0 and a year"),
        );
        let LimitsConfig { requests, inflight_bytes, io_threads } = self.limits;
        rule(between(requests as u64, 8, 4096), format!("limits.requests = {requests} is not between 8 and 4096"));
        rule(
            between(inflight_bytes.0, 16 << 20, 1 << 40),
            format!("limits.inflight_bytes = {inflight_bytes} is not between 16MiB and 1TiB"),
        );
        rule(between(io_threads as u64, 1, 256), format!("limits.io_threads = {io_threads} is not between 1 and 256"));
        if broken.is_empty() {
            return Ok(());
        }
        Err(FsError::new(FsCode::Invalid, broken.join("; "))
            .with_hint("correct the configuration; samples are in deploy/"))
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_runtime::config::from_parts;

    fn parse(text: &str, vars: &[(&str, &str)]) -> Config {
        from_parts("oss.toml", text, vars.iter().map(|(k, v)| (k.to_string(), v.to_string()))).expect("parses").config
    }

    #[test]
    fn a_small_file_is_enough() {
        let config = parse("mds = \"mds1:9880\"\n[[ost]]\npath = \"/srv/ost0\"\ncapacity = \"10GiB\"", &[]);
        config.validate().expect("valid");
        assert_eq!(config.mds, ["mds1:9880"]);
        assert_eq!(config.ost[0].capacity, Some(ByteSize(10 << 30)));
        assert!(config.ost[0].create);
        let config = parse("mds = [\"a:1\", \"b:2\"]", &[("SATEEN_LISTEN", "h:7"), ("SATEEN_STORE_SEGMENT", "64MiB")]);
        assert_eq!((config.mds.len(), config.listen.as_str(), config.store.segment.0), (2, "h:7", 64 << 20));
    }

    #[test]
    fn the_sample_in_deploy_is_valid_and_shows_the_defaults() {
        let sample = parse(include_str!("../../deploy/config/oss.toml"), &[]);
        sample.validate().expect("valid");
        let defaults = Config::default();
        let shown = |c: &Config| {
            format!("{:?}", (&c.listen, &c.advertise, &c.mds, &c.store, &c.limits, &c.scrub, &c.metrics_listen, &c.log))
        };
        assert_eq!(shown(&sample), shown(&defaults));
    }

    #[test]
    fn every_broken_rule_is_told_at_once() {
        let text = "listen = \"nowhere\"\nmds = []\n[[ost]]\npath = \"relative\"\n[limits]\nio_threads = 0";
        let err = parse(text, &[]).validate().expect_err("broken");
        for part in ["\"nowhere\"", "mds", "not absolute", "io_threads = 0"] {
            assert!(err.message.contains(part), "{err}");
        }
    }
}
