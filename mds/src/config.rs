//! Settings of the MDS. Every key has a default that suits a machine of its own except `dir`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sateen_runtime::ByteSize;
use sateen_runtime::telemetry::LogConfig;
use serde::{Deserialize, Serialize};

use crate::cluster::ClusterOptions;
use crate::store::RocksOptions;

/// The configuration file. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port clients and OSSs connect to.
    pub listen: SocketAddr,
    /// The MDS directory: superblock, registry, file systems. Made if it does not exist.
    pub dir: PathBuf,
    /// HOST:PORT where Prometheus finds `/metrics`. Empty: nowhere.
    pub metrics_listen: String,
    /// `[cluster]`
    pub cluster: ClusterConfig,
    /// `[session]`
    pub session: SessionConfig,
    /// `[store]`
    pub store: StoreConfig,
    /// `[log]`
    pub log: LogConfig,
}

/// Watching OSSs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// An OST that is silent for so many milliseconds is DOWN. OSSs report five times as often. 500 to 600,000.
    pub ost_timeout_ms: u64,
}

/// Watching clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// A client that is silent for so many milliseconds loses its session. Also how long a restarted MDS waits for
    /// clients to say what they have open before it destroys removed files. 1,000 to 3,600,000.
    pub lease_ms: u64,
}

/// Memory of RocksDB, per file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Cache of table blocks. At least 1 MiB.
    pub block_cache: ByteSize,
    /// Changes kept in memory before they become table files. At least 1 MiB.
    pub memtables: ByteSize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([0, 0, 0, 0], 9880)),
            dir: PathBuf::from("/var/lib/sateen/mds"),
            metrics_listen: String::new(),
            cluster: ClusterConfig::default(),
            session: SessionConfig::default(),
            store: StoreConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for ClusterConfig {
    fn default() -> ClusterConfig {
        // Two lost reports and a busy machine are no reason to call an OST down.
        ClusterConfig { ost_timeout_ms: 10_000 }
    }
}

impl Default for SessionConfig {
    fn default() -> SessionConfig {
        SessionConfig { lease_ms: 60_000 }
    }
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig { block_cache: ByteSize(128 << 20), memtables: ByteSize(64 << 20) }
    }
}

impl Config {
    /// Every value that breaks a rule, all at once.
    pub fn validate(&self) -> Result<(), String> {
        let mut wrong = Vec::new();
        let mut range = |key: &str, value: u64, min: u64, max: u64| {
            if !(min..=max).contains(&value) {
                wrong.push(format!("{key} = {value} is not between {min} and {max}"));
            }
        };
        range("cluster.ost_timeout_ms", self.cluster.ost_timeout_ms, 500, 600_000);
        range("session.lease_ms", self.session.lease_ms, 1_000, 3_600_000);
        range("store.block_cache", self.store.block_cache.0, 1 << 20, 1 << 40);
        range("store.memtables", self.store.memtables.0, 1 << 20, 1 << 36);
        if self.dir.as_os_str().is_empty() {
            wrong.push("dir is empty".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// What the cluster needs of it.
    pub fn cluster_options(&self) -> ClusterOptions {
        ClusterOptions {
            lease: Duration::from_millis(self.session.lease_ms),
            ost_timeout: Duration::from_millis(self.cluster.ost_timeout_ms),
            store: RocksOptions {
                block_cache_bytes: self.store.block_cache.0 as usize,
                memtable_bytes: self.store.memtables.0 as usize,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_value_is_named_at_once() {
        let mut config = Config::default();
        config.validate().expect("defaults are right");
        config.cluster.ost_timeout_ms = 1;
        config.session.lease_ms = 0;
        let wrong = config.validate().expect_err("two");
        assert!(wrong.contains("ost_timeout_ms = 1") && wrong.contains("lease_ms = 0"), "{wrong}");
    }

    #[test]
    fn the_sample_in_deploy_has_the_defaults() {
        let text = include_str!("../../deploy/config/mds.toml");
        let sample = sateen_runtime::config::from_parts::<Config>("mds.toml", text, []).expect("valid");
        assert_eq!(sample.config, Config::default());
    }

    #[test]
    fn a_file_with_every_key_is_read() {
        let text = "listen = \"127.0.0.1:1\"\ndir = \"/x\"\n[cluster]\nost_timeout_ms = 2000\n[session]\nlease_ms = 5000\n\
                    [store]\nblock_cache = \"8MiB\"\nmemtables = 4194304\n[log]\nlevel = \"warn\"\nformat = \"json\"\n";
        let loaded = sateen_runtime::config::from_parts::<Config>("f", text, []).expect("valid");
        assert_eq!(loaded.config.cluster_options().store.memtable_bytes, 4 << 20);
        let err = sateen_runtime::config::from_parts::<Config>("f", "lisen = 1", []).expect_err("typo");
        assert!(err.hint().contains("listen"), "{}", err.hint());
    }
}
