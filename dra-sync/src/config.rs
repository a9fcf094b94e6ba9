//! Settings of a worker.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sateen_runtime::telemetry::LogConfig;
use sateen_runtime::{ByteSize, config};
use sateen_types::limits::TAKE_MAX;
use sateen_types::repository::RepositorySettings;
use sateen_types::{FsCode, FsError, FsName, FsResult};
use serde::{Deserialize, Serialize};

use crate::credentials::{AzureAccount, Credentials, Profile};

/// Port where nothing was said.
pub const PORT_DEFAULT: u16 = 9883;
/// Name of the credentials where a link names none.
const PROFILE_DEFAULT: &str = "default";
/// Below it two ranges would not fit.
const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// Most objects being stored at a time: as many as a worker takes at most.
pub const EXPORTS_MAX: usize = 256;
/// Below it parts would not be stored beside each other.
const EXPORT_MEMORY_BYTES_MIN: u64 = 32 << 20;
/// Most profiles in a configuration.
const PROFILES_MAX: usize = 1000;

/// URL, endpoint, region and profile of a link.
pub type StoreName = [String; 4];

/// The configuration file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// HOST:PORT of the MDS, or a list of them that are tried in order.
    #[serde(deserialize_with = "config::one_or_many")]
    pub mds: Vec<String>,
    /// File systems to work for. Empty: all of the cluster, also those that are made later.
    pub file_systems: Vec<String>,
    /// HOST:PORT of the health service (gRPC).
    pub listen: String,
    /// HOST:PORT where Prometheus finds `/metrics`. Empty: nowhere.
    pub metrics_listen: String,
    /// Directories of this machine that may be linked as `file:///DIRECTORY/`, with all below them.
    pub directories: Vec<PathBuf>,
    /// How much is done at once.
    pub limits: LimitsConfig,
    /// Where stores tell of changes.
    pub webhook: WebhookConfig,
    /// Where keys come from, by the names that links give.
    pub profiles: BTreeMap<String, Profile>,
    /// Logging.
    pub log: LogConfig,
}

/// How much is done at once: counts are for each file system, memory for the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Assignments: ranges being fetched, imports, looks at buckets.
    pub assignments: usize,
    /// Memory for ranges being fetched.
    pub memory: ByteSize,
    /// Objects of an import whose metadata are asked for at once.
    pub heads: usize,
    /// Objects being stored, copied or deleted.
    pub exports: usize,
    /// Memory for their bytes. Files of more than ten thousand times this cannot be stored.
    pub export_memory: ByteSize,
}

/// The HTTP endpoint for events of buckets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// HOST:PORT. Empty: nowhere.
    pub listen: String,
    /// A file with the token that senders must know, 16 to 512 letters, digits, '-' or '_'.
    pub token_file: PathBuf,
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig {
            assignments: 32,
            memory: ByteSize(256 << 20),
            heads: 64,
            exports: 64,
            export_memory: ByteSize(256 << 20),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            mds: vec!["127.0.0.1:9880".to_owned()],
            file_systems: Vec::new(),
            listen: format!("127.0.0.1:{PORT_DEFAULT}"),
            metrics_listen: String::new(),
            directories: Vec::new(),
            limits: LimitsConfig::default(),
            webhook: WebhookConfig::default(),
            profiles: BTreeMap::new(),
            log: LogConfig::default(),
        }
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
        let address =
            |a: &str| a.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        rule(!self.mds.is_empty(), "mds names no address".to_owned());
        for mds in &self.mds {
            rule(address(mds), format!("mds = {mds:?} is not HOST:PORT"));
        }
        for name in &self.file_systems {
            rule(name.parse::<FsName>().is_ok(), format!("file_systems = {name:?} is not a name of one"));
        }
        rule(address(&self.listen), format!("listen = {:?} is not HOST:PORT", self.listen));
        rule(
            self.metrics_listen.is_empty() || address(&self.metrics_listen),
            format!("metrics_listen = {:?} is not HOST:PORT", self.metrics_listen),
        );
        for directory in &self.directories {
            rule(directory.is_absolute(), format!("directories = {directory:?} is not absolute"));
        }
        let LimitsConfig { assignments, memory, heads, exports, export_memory } = self.limits;
        rule(
            (1..=TAKE_MAX as usize).contains(&assignments),
            format!("limits.assignments = {assignments} is not between 1 and {TAKE_MAX}"),
        );
        rule(
            (MEMORY_BYTES_MIN..=1 << 40).contains(&memory.0),
            format!("limits.memory = {memory} is not between 16MiB and 1TiB"),
        );
        rule(
            (1..=EXPORTS_MAX).contains(&exports),
            format!("limits.exports = {exports} is not between 1 and {EXPORTS_MAX}"),
        );
        rule(
            (EXPORT_MEMORY_BYTES_MIN..=1 << 40).contains(&export_memory.0),
            format!("limits.export_memory = {export_memory} is not between 32MiB and 1TiB"),
        );
        rule((1..=1000).contains(&heads), format!("limits.heads = {heads} is not between 1 and 1000"));
        let WebhookConfig { listen, token_file } = &self.webhook;
        rule(listen.is_empty() || address(listen), format!("webhook.listen = {listen:?} is not HOST:PORT"));
        rule(
            listen.is_empty() || token_file.is_absolute(),
            format!("webhook.token_file = {token_file:?} is not absolute, and webhook.listen is set"),
        );
        rule(self.profiles.len() <= PROFILES_MAX, format!("more than {PROFILES_MAX} [profiles.NAME]"));
        for (name, profile) in &self.profiles {
            let file = &profile.file;
            rule(
                file.as_os_str().is_empty() || file.is_absolute(),
                format!("profiles.{name}.file = {file:?} is not absolute"),
            );
        }
        if broken.is_empty() {
            return Ok(());
        }
        Err(FsError::new(FsCode::Invalid, broken.join("; "))
            .with_hint("correct the configuration; samples are in deploy/"))
    }

    /// The keys of a profile as they are now; `None`: requests are not signed.
    pub fn credentials(&self, profile: &str) -> FsResult<Option<Credentials>> {
        self.profile(profile)?.read(profile)
    }

    /// The same for Azure.
    pub fn azure_account(&self, profile: &str) -> FsResult<AzureAccount> {
        self.profile(profile)?.read_azure(profile)
    }

    fn profile(&self, profile: &str) -> FsResult<Profile> {
        match self.profiles.get(profile) {
            Some(found) => Ok(found.clone()),
            None if profile == PROFILE_DEFAULT => Ok(Profile::default()),
            None => Err(FsError::new(FsCode::Invalid, format!("this worker has no credentials named {profile:?}"))
                .with_hint(
                    "add [profiles.NAME] to the configuration of sateen-dra-sync, or link with another --profile",
                )),
        }
    }

    /// What two links must have in common to be served by one connection pool.
    pub fn store_of(settings: &RepositorySettings) -> StoreName {
        [settings.url.to_string(), settings.endpoint.clone(), settings.region.clone(), settings.profile.clone()]
    }
}

#[cfg(test)]
mod tests {
    use sateen_runtime::config::from_parts;

    use super::*;

    fn parse(text: &str, vars: &[(&str, &str)]) -> Config {
        let vars = vars.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        from_parts("dra-sync.toml", text, vars).expect("parses").config
    }

    #[test]
    fn the_sample_in_deploy_is_valid_and_shows_the_defaults() {
        let sample = parse(include_str!("../../deploy/config/dra-sync.toml"), &[]);
        sample.validate().expect("valid");
        assert_eq!(format!("{sample:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn the_environment_wins() {
        let vars = [("SATEEN_MDS", "h:1"), ("SATEEN_LIMITS_HEADS", "7"), ("SATEEN_LOG_LEVEL", "warn")];
        let config = parse("mds = [\"a:1\", \"b:2\"]", &vars);
        assert_eq!((config.mds, config.limits.heads, config.log.level), (vec!["h:1".to_owned()], 7, "warn".to_owned()));
    }

    #[test]
    fn every_broken_rule_is_told_at_once() {
        let text = "listen = \"nowhere\"\nmds = []\ndirectories = [\"data\"]\n[limits]\nheads = 0\n\
                    [webhook]\nlisten = \"h:1\"\n[profiles.lab]\nfile = \"keys\"";
        let error = parse(text, &[]).validate().expect_err("broken");
        for part in ["\"nowhere\"", "mds", "\"data\"", "heads = 0", "webhook.token_file", "profiles.lab.file"] {
            assert!(error.message.contains(part), "{error}");
        }
    }

    #[test]
    fn an_unknown_profile_is_named() {
        let error = Config::default().credentials("lab").expect_err("none");
        assert!(error.message.contains("\"lab\"") && error.hint.is_some());
    }
}
