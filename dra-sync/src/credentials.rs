//! Where keys come from: a file in the form of AWS's shared credentials, or the environment. Never the configuration itself, a
//! command line, or a log. Which keys of a section, and which variables, depends on the kind of store.

use std::collections::HashMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sateen_types::{FsCode, FsError, FsResult};
use serde::{Deserialize, Serialize};

/// Largest file of credentials that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Permissions that others than the owner of such a file should not have. (A group may, as for `root:sateen`, 0640.)
const OTHERS: u32 = 0o007;

/// Keys for a store.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Names who asks.
    pub access_key: String,
    /// Signs what is asked.
    pub secret_key: String,
    /// Of temporary keys.
    pub token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ...)", self.access_key)
    }
}

/// Keys for Azure.
#[derive(Clone, PartialEq, Eq)]
pub enum AzureKeys {
    /// One of the two keys of the account, in base64.
    Key(String),
    /// A shared access signature, as a query.
    Signature(String),
    /// What Azure's own tools find in the environment: an identity of the machine or of the workload, a client's secret.
    Environment,
}

/// Whose containers, and how that is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureAccount {
    /// Empty: the endpoint tells.
    pub account: String,
    /// `None`: requests are not signed.
    pub keys: Option<AzureKeys>,
}

impl fmt::Debug for AzureKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AzureKeys::Key(_) => "Key(...)",
            AzureKeys::Signature(_) => "Signature(...)",
            AzureKeys::Environment => "Environment",
        })
    }
}

/// One `[profiles.NAME]` of the configuration: where its keys are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// A file in the form of AWS's `~/.aws/credentials`. Empty: the environment.
    pub file: PathBuf,
    /// Section of that file; empty: the name of the profile.
    pub section: String,
    /// Name of the variable with the access key. Empty: AWS_ACCESS_KEY_ID.
    pub access_key_env: String,
    /// Name of the variable with the secret key. Empty: AWS_SECRET_ACCESS_KEY.
    pub secret_key_env: String,
    /// Name of the variable with the session token, which need not be set. Empty: AWS_SESSION_TOKEN.
    pub token_env: String,
    /// Requests are not signed: for public buckets.
    pub anonymous: bool,
}

impl Profile {
    /// The keys as they are now; `None` if requests are not to be signed. Files are read each time: keys change.
    pub fn read(&self, name: &str) -> FsResult<Option<Credentials>> {
        if self.anonymous {
            return Ok(None);
        }
        if !self.file.as_os_str().is_empty() {
            let section = self.section_of(name);
            return from_file(&self.file, section, |keys| aws_keys(keys, section)).map(Some);
        }
        let or = |given: &str, usual: &'static str| if given.is_empty() { usual.to_owned() } else { given.to_owned() };
        let access = or(&self.access_key_env, "AWS_ACCESS_KEY_ID");
        let secret = or(&self.secret_key_env, "AWS_SECRET_ACCESS_KEY");
        let token = or(&self.token_env, "AWS_SESSION_TOKEN");
        match (variable(&access), variable(&secret)) {
            (Some(access_key), Some(secret_key)) => {
                Ok(Some(Credentials { access_key, secret_key, token: variable(&token) }))
            }
            _ => Err(FsError::new(
                FsCode::Invalid,
                format!("credentials {name:?}: the variables {access} and {secret} are not both set"),
            )
            .with_hint(
                "set them for sateen-dra-sync, or name a file in its configuration: [profiles.NAME] file = ...",
            )),
        }
    }

    /// The same for Azure.
    pub fn read_azure(&self, name: &str) -> FsResult<AzureAccount> {
        if !self.file.as_os_str().is_empty() {
            let section = self.section_of(name);
            return from_file(&self.file, section, |found| {
                let get = |key: &str| found.get(key).cloned();
                let keys = azure_keys(get("azure_storage_key"), get("azure_storage_sas_token"));
                if keys.is_none() && !self.anonymous {
                    return Err(format!("section [{section}] lacks azure_storage_key and azure_storage_sas_token"));
                }
                let account = get("azure_storage_account").unwrap_or_default();
                Ok(AzureAccount { account, keys: keys.filter(|_| !self.anonymous) })
            });
        }
        let either = |one: &str, other: &str| variable(one).or_else(|| variable(other));
        let keys = azure_keys(
            either("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"),
            either("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"),
        );
        let account = either("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME").unwrap_or_default();
        Ok(AzureAccount { account, keys: (!self.anonymous).then(|| keys.unwrap_or(AzureKeys::Environment)) })
    }

    fn section_of<'a>(&'a self, name: &'a str) -> &'a str {
        if self.section.is_empty() { name } else { &self.section }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What `take` makes of the keys and values in a section of a file.
fn from_file<T>(path: &Path, section: &str, take: impl Fn(&Section) -> Result<T, String>) -> FsResult<T> {
    let failed = |what: String| {
        FsError::new(FsCode::Invalid, format!("credentials file {}: {what}", path.display()))
            .with_hint("write it as AWS's ~/.aws/credentials, readable for sateen-dra-sync only")
    };
    let read = || {
        let meta = std::fs::metadata(path)?;
        if meta.len() > FILE_BYTES_MAX {
            return Err(std::io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        if meta.mode() & OTHERS != 0 {
            tracing::warn!(path = %path.display(), "others may read these keys: chmod 600");
        }
        std::fs::read_to_string(path)
    };
    let text = read().map_err(|e| failed(e.to_string()))?;
    parse(&text, section).and_then(|keys| take(&keys)).map_err(failed)
}

/// Names and values of a section; empty values are none.
type Section = HashMap<String, String>;

/// What is in a section. Errors hold none of the text.
fn parse(text: &str, section: &str) -> Result<Section, String> {
    let (mut inside, mut seen) = (false, false);
    let mut found = Section::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = name.trim() == section;
            seen |= inside;
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| format!("line {} is not KEY = VALUE", i + 1))?;
        if inside && !value.trim().is_empty() {
            found.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    if seen { Ok(found) } else { Err(format!("it has no section [{section}]")) }
}

fn aws_keys(keys: &Section, section: &str) -> Result<Credentials, String> {
    let get = |key: &str| keys.get(key).cloned();
    match (get("aws_access_key_id"), get("aws_secret_access_key")) {
        (Some(access_key), Some(secret_key)) => {
            Ok(Credentials { access_key, secret_key, token: get("aws_session_token") })
        }
        _ => Err(format!("section [{section}] lacks aws_access_key_id or aws_secret_access_key")),
    }
}

/// Of a key and a signature the key counts: it can do more.
fn azure_keys(key: Option<String>, signature: Option<String>) -> Option<AzureKeys> {
    key.map(AzureKeys::Key).or(signature.map(AzureKeys::Signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# two\n[default]\naws_access_key_id = AK\naws_secret_access_key=S=K/+\nregion = x\n\n\
                        [other]\naws_access_key_id = B\naws_secret_access_key = C\naws_session_token = T\n[half]\naws_access_key_id=B\n";

    fn read(text: &str, section: &str) -> Result<Credentials, String> {
        parse(text, section).and_then(|keys| aws_keys(&keys, section))
    }

    #[test]
    fn each_section_has_its_keys() {
        let default = read(FILE, "default").expect("keys");
        assert_eq!((default.access_key.as_str(), default.secret_key.as_str(), &default.token), ("AK", "S=K/+", &None));
        assert_eq!(read(FILE, "other").expect("keys").token.as_deref(), Some("T"));
    }

    #[test]
    fn what_is_missing_is_said_without_what_is_there() {
        let none = read(FILE, "none").expect_err("no section");
        assert!(none.contains("[none]"), "{none}");
        let half = read(FILE, "half").expect_err("no secret");
        assert!(half.contains("aws_secret_access_key"), "{half}");
        let broken = read("[default]\nmy secret key\n", "default").expect_err("no line of the form");
        assert!(broken.contains("line 2") && !broken.contains("secret"), "{broken}");
    }

    #[test]
    fn azure_is_given_a_key_or_a_signature() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("keys");
        let text = "[default]\nazure_storage_account = lab\nazure_storage_key = a2V5\n\
                    [sas]\nazure_storage_sas_token = sv=1&sig=x%3D\n[none]\nregion = x\n";
        std::fs::write(&file, text).expect("written");
        let of = |section: &str, anonymous: bool| {
            Profile { file: file.clone(), section: section.to_owned(), anonymous, ..Profile::default() }.read_azure("p")
        };
        let key = of("default", false).expect("keys");
        assert_eq!((key.account.as_str(), &key.keys), ("lab", &Some(AzureKeys::Key("a2V5".to_owned()))));
        let signature = of("sas", false).expect("keys");
        assert_eq!(signature.account, "");
        assert_eq!(signature.keys, Some(AzureKeys::Signature("sv=1&sig=x%3D".to_owned())));
        assert!(of("none", false).expect_err("nothing").message.contains("azure_storage_key"));
        assert_eq!(of("none", true).expect("a public container").keys, None);
        assert!(!format!("{key:?} {signature:?}").contains("a2V5") && !format!("{signature:?}").contains("sig"));
    }

    #[test]
    fn files_and_variables_are_named_when_they_are_not_there() {
        let profile = Profile { file: "/nowhere/keys".into(), ..Profile::default() };
        assert!(profile.read("default").expect_err("no file").message.contains("/nowhere/keys"));
        let profile = Profile { access_key_env: "SATEEN_NOT_SET_1".into(), ..Profile::default() };
        let error = profile.read("lab").expect_err("no variable");
        assert!(error.message.contains("SATEEN_NOT_SET_1") && error.message.contains("lab") && error.hint.is_some());
        let anonymous = Profile { anonymous: true, ..Profile::default() };
        assert_eq!(anonymous.read("public").expect("nothing to read"), None);
    }

    #[test]
    fn no_key_is_shown() {
        let keys = Credentials { access_key: "AK".into(), secret_key: "hush".into(), token: Some("hush2".into()) };
        assert!(!format!("{keys:?}").contains("hush"));
    }
}
