//! Configuration: defaults < TOML file < environment. Unknown keys are errors with a suggestion.
//!
//! A process declares one plain struct with `#[serde(default, deny_unknown_fields)]`. A variable
//! `SATEEN_<SECTION>_<KEY>` (or `SATEEN_<KEY>` outside a section) overrides a key; its value is read as TOML and, if
//! that fails, taken as text. Variables that name no key of this process are returned, to be logged: they may belong
//! to another program.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use toml::{Table, Value};

/// Prefix of environment variables.
const ENV_PREFIX: &str = "SATEEN_";
/// Largest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a configuration was refused. [`ConfigError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not readable.
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML, or a key or value is wrong.
    #[error("{origin}: {message}")]
    Bad {
        /// The file or variable it came from.
        origin: String,
        /// What is wrong, with key and value.
        message: String,
        /// The key that was probably meant, or the rule.
        hint: String,
    },
}

impl ConfigError {
    /// One line of advice.
    pub fn hint(&self) -> &str {
        match self {
            ConfigError::Read { .. } => "give an existing TOML file with --config FILE; samples are in deploy/",
            ConfigError::Bad { hint, .. } => hint,
        }
    }
}

/// A loaded configuration.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The settings.
    pub config: T,
    /// Variables with our prefix that named no key.
    pub ignored_variables: Vec<String>,
}

/// Reads `file` and the process's environment.
pub fn load<T>(file: Option<&Path>) -> Result<Loaded<T>, ConfigError>
where
    T: DeserializeOwned + Serialize + Default,
{
    let (origin, text) = match file {
        None => ("defaults".to_owned(), String::new()),
        Some(path) => {
            let read = |path: &Path| {
                if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
                    return Err(std::io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
                }
                std::fs::read_to_string(path)
            };
            let origin = path.display().to_string();
            (origin.clone(), read(path).map_err(|source| ConfigError::Read { path: origin, source })?)
        }
    };
    from_parts(&origin, &text, std::env::vars())
}

/// Pure part of [`load`]: `text` is TOML from `origin`, `variables` an environment.
pub fn from_parts<T>(
    origin: &str,
    text: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded<T>, ConfigError>
where
    T: DeserializeOwned + Serialize + Default,
{
    let bad = |origin: &str, message: &str| ConfigError::Bad {
        origin: origin.to_owned(),
        message: message.trim().replace('\n', " "),
        hint: suggestion(message).unwrap_or_else(|| "see the samples in deploy/ for keys and units".to_owned()),
    };
    // Deserialized from the text, so that messages carry line and column.
    let from_file: T = toml::from_str(text).map_err(|e| bad(origin, &e.to_string()))?;
    let mut table: Table = toml::from_str(text).map_err(|e| bad(origin, &e.to_string()))?;
    let sections = match Value::try_from(&from_file) {
        Ok(Value::Table(t)) => t,
        _ => Table::new(),
    };
    let mut config = from_file;
    let mut ignored_variables = Vec::new();
    for (variable, text) in variables {
        let Some(rest) = variable.strip_prefix(ENV_PREFIX) else { continue };
        let candidate = with_value(&table, &sections, &rest.to_ascii_lowercase(), &text);
        match candidate.clone().try_into::<T>() {
            Ok(changed) => {
                config = changed;
                table = candidate;
            }
            Err(e) if e.to_string().contains("unknown field") => ignored_variables.push(variable),
            Err(e) => return Err(bad(&format!("environment variable {variable}={text:?}"), e.message())),
        }
    }
    ignored_variables.sort();
    Ok(Loaded { config, ignored_variables })
}

/// For a key that is one address or a list of them: `#[serde(deserialize_with = "config::one_or_many")]`.
pub fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected HOST:PORT or a list of them")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(address) => vec![address],
        OneOrMany::Many(addresses) => addresses,
    })
}

/// `table` with the value of variable `rest` put where its name says.
fn with_value(table: &Table, sections: &Table, rest: &str, text: &str) -> Table {
    let value = toml::from_str::<Table>(&format!("v = {text}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    let mut table = table.clone();
    for (section, keys) in sections {
        if let (Some(key), Value::Table(_)) = (rest.strip_prefix(&format!("{section}_")), keys) {
            let entry = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(t) = entry {
                t.insert(key.to_owned(), value);
            }
            return table;
        }
    }
    table.insert(rest.to_owned(), value);
    table
}

/// "did you mean" from serde's message about an unknown field: the known name that is nearest.
fn suggestion(message: &str) -> Option<String> {
    let after = message.split_once("unknown field `")?.1;
    let (wrong, rest) = after.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let nearest = known.iter().min_by_key(|k| distance(wrong, k))?;
    if distance(wrong, nearest) <= 3 {
        Some(format!("did you mean {nearest:?}?"))
    } else {
        Some(format!("known keys here: {}", known.join(", ")))
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let next = (diagonal + usize::from(ca != *cb)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        listen: String,
        dir: Option<String>,
        store: Store,
    }

    #[derive(Debug, PartialEq, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Store {
        cache_bytes: u64,
        path: Option<String>,
    }

    impl Default for Sample {
        fn default() -> Sample {
            Sample { listen: "[::]:1".into(), dir: None, store: Store::default() }
        }
    }

    fn parse(text: &str, vars: &[(&str, &str)]) -> Result<Loaded<Sample>, ConfigError> {
        from_parts("f.toml", text, vars.iter().map(|(k, v)| (k.to_string(), v.to_string())))
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
        let got = parse(
            "dir = \"/a\"\n[store]\ncache_bytes = 5",
            &[("SATEEN_STORE_CACHE_BYTES", "7"), ("SATEEN_STORE_PATH", "/x"), ("SATEEN_DIR", "/b"), ("HOME", "/root")],
        )
        .expect("valid");
        assert_eq!(got.config.listen, "[::]:1");
        assert_eq!(got.config.dir.as_deref(), Some("/b"));
        assert_eq!(got.config.store, Store { cache_bytes: 7, path: Some("/x".into()) });
        assert!(got.ignored_variables.is_empty());
    }

    #[test]
    fn unknown_keys_are_refused_with_a_suggestion() {
        let err = parse("lisen = \"x\"", &[]).expect_err("typo");
        assert!(err.to_string().contains("f.toml") && err.to_string().contains("lisen"), "{err}");
        assert_eq!(err.hint(), "did you mean \"listen\"?");
        let err = parse("[store]\nquux_everything = 1", &[]).expect_err("typo");
        assert!(err.hint().contains("cache_bytes"), "{}", err.hint());
    }

    #[test]
    fn bad_values_name_file_or_variable() {
        let err = parse("[store]\ncache_bytes = \"many\"", &[]).expect_err("not a number");
        assert!(err.to_string().contains("cache_bytes"), "{err}");
        let err = parse("", &[("SATEEN_STORE_CACHE_BYTES", "many")]).expect_err("not a number");
        assert!(err.to_string().contains("SATEEN_STORE_CACHE_BYTES=\"many\""), "{err}");
        assert!(parse("listen = ", &[]).is_err());
    }

    #[test]
    fn variables_of_other_programs_are_ignored_but_reported() {
        let got = parse("", &[("SATEEN_MDS", "h:1")]).expect("valid");
        assert_eq!(got.ignored_variables, ["SATEEN_MDS"]);
    }
}
