//! Where keys come from: a file in the form of AWS's shared credentials, or the environment. Never the configuration itself, a
//! command line, or a log.

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
            let section = if self.section.is_empty() { name } else { &self.section };
            return from_file(&self.file, section).map(Some);
        }
        let or = |given: &str, usual: &'static str| if given.is_empty() { usual.to_owned() } else { given.to_owned() };
        let access = or(&self.access_key_env, "AWS_ACCESS_KEY_ID");
        let secret = or(&self.secret_key_env, "AWS_SECRET_ACCESS_KEY");
        let token = or(&self.token_env, "AWS_SESSION_TOKEN");
        let get = |variable: &str| std::env::var(variable).ok().filter(|value| !value.is_empty());
        match (get(&access), get(&secret)) {
            (Some(access_key), Some(secret_key)) => {
                Ok(Some(Credentials { access_key, secret_key, token: get(&token) }))
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
}

fn from_file(path: &Path, section: &str) -> FsResult<Credentials> {
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
    parse(&text, section).map_err(failed)
}

/// The keys of a section. Errors hold none of the text.
fn parse(text: &str, section: &str) -> Result<Credentials, String> {
    let (mut inside, mut seen) = (false, false);
    let (mut access, mut secret, mut token) = (None, None, None);
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
        let value = Some(value.trim().to_owned()).filter(|v| !v.is_empty());
        match key.trim() {
            _ if !inside => {}
            "aws_access_key_id" => access = value,
            "aws_secret_access_key" => secret = value,
            "aws_session_token" => token = value,
            _ => {}
        }
    }
    match (access, secret) {
        (Some(access_key), Some(secret_key)) => Ok(Credentials { access_key, secret_key, token }),
        _ if !seen => Err(format!("it has no section [{section}]")),
        _ => Err(format!("section [{section}] lacks aws_access_key_id or aws_secret_access_key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# two\n[default]\naws_access_key_id = AK\naws_secret_access_key=S=K/+\nregion = x\n\n\
                        [other]\naws_access_key_id = B\naws_secret_access_key = C\naws_session_token = T\n[half]\naws_access_key_id=B\n";

    #[test]
    fn each_section_has_its_keys() {
        let default = parse(FILE, "default").expect("keys");
        assert_eq!((default.access_key.as_str(), default.secret_key.as_str(), &default.token), ("AK", "S=K/+", &None));
        assert_eq!(parse(FILE, "other").expect("keys").token.as_deref(), Some("T"));
    }

    #[test]
    fn what_is_missing_is_said_without_what_is_there() {
        let none = parse(FILE, "none").expect_err("no section");
        assert!(none.contains("[none]"), "{none}");
        let half = parse(FILE, "half").expect_err("no secret");
        assert!(half.contains("aws_secret_access_key"), "{half}");
        let broken = parse("[default]\nmy secret key\n", "default").expect_err("no line of the form");
        assert!(broken.contains("line 2") && !broken.contains("secret"), "{broken}");
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
