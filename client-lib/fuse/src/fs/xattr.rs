//! Extended attributes, those stored at the MDS and the virtual ones.
//!
//! | name            | on             | get                                           | set                  | remove         |
//! |-----------------|----------------|-----------------------------------------------|----------------------|----------------|
//! | `sateen.layout` | regular file   | `Layout` as JSON                              | `LayoutTemplate`     | -              |
//! | `sateen.layout` | directory      | `{"template": LayoutTemplate, "own": bool}`   | `LayoutTemplate`     | drops its own  |
//! | `sateen.fid`    | everything     | the FID as text                               | -                    | -              |
//! | `sateen.hsm`    | regular file   | what is known of its object, as JSON (below)  | a request (below)    | -              |
//! | `sateen.mount`  | everything     | `{"source","fs_id","version"}` as JSON        | -                    | -              |
//!
//! `sateen.hsm` is `{"flags", "action", "running", "repository", "key", "loaded_bytes", "remote_bytes"}`: Lustre's numbers, the
//! repository as `sateen repo list` shows it (null: none any more). There is none of a file that never was in a repository. Requests are
//! `restore`, `release`, `archive`, `remove`, `cancel`, and `set=N` and `clear=N` with state bits in decimal digits.
//!
//! Virtual attributes are not listed, so that programs which copy attributes do not try to.

use sateen_client::XattrMode;
use sateen_types::acl::{ACCESS_XATTR, DEFAULT_XATTR};
use sateen_types::limits::{XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use sateen_types::repository::HsmOperation;
use sateen_types::{Credential, FileType, FsCode, FsError, FsResult, HsmFlags, LayoutTemplate, XattrName};
use serde_json::json;

use super::{MountedFs, gone_is_stale};

/// Prefix of the virtual attributes.
const VIRTUAL: &[u8] = b"sateen.";
/// Name space of the kernel's own attributes, of which there are the two ACLs.
const SYSTEM: &[u8] = b"system.";

impl MountedFs {
    /// Value of an attribute.
    pub async fn getxattr(&self, cred: &Credential, ino: u64, name: &[u8]) -> FsResult<Vec<u8>> {
        let fid = self.fid(ino)?;
        match name {
            b"sateen.fid" => Ok(fid.to_string().into_bytes()),
            b"sateen.mount" => {
                let text = json!({
                    "source": self.source,
                    "fs_id": self.client.fs_id().0,
                    "version": env!("CARGO_PKG_VERSION"),
                });
                Ok(text.to_string().into_bytes())
            }
            b"sateen.hsm" => {
                let state = gone_is_stale(self.client.hsm_state(fid).await)?;
                json_bytes(&json!({
                    "flags": state.flags.0,
                    "action": state.action.wire(),
                    "running": state.running,
                    "repository": state.repository.map(|id| id.to_string()),
                    "key": String::from_utf8_lossy(&state.key),
                    "loaded_bytes": state.loaded_bytes,
                    "remote_bytes": state.remote_bytes,
                }))
            }
            b"sateen.layout" => match self.getattr(ino).await?.attr.file_type {
                FileType::Regular => json_bytes(&self.client.layout(fid).await?),
                FileType::Directory => {
                    let default = self.client.default_layout(fid).await?;
                    json_bytes(&json!({ "template": default.layout, "own": default.own }))
                }
                _ => Err(no_data(name)),
            },
            _ if name.starts_with(VIRTUAL) => Err(no_data(name)),
            _ if self.xattr_hints.is_absent(ino, name) => Err(no_data(name)),
            _ if is_unsupported(name) => Err(unsupported(name)),
            _ => gone_is_stale(self.client.getxattr(cred, fid, &XattrName::parse(name)?).await),
        }
    }

    /// Sets an attribute. `flags` are those of setxattr(2).
    pub async fn setxattr(&self, cred: &Credential, ino: u64, name: &[u8], value: &[u8], flags: i32) -> FsResult<()> {
        let fid = self.fid(ino)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(FsError::new(FsCode::TooBig, format!("attribute value of {} bytes", value.len())));
        }
        match name {
            b"sateen.layout" => {
                let template: LayoutTemplate = serde_json::from_slice(value).map_err(|e| {
                    FsError::new(FsCode::Invalid, format!("sateen.layout is not a layout template: {e}"))
                })?;
                template.validate()?;
                match self.getattr(ino).await?.attr.file_type {
                    FileType::Regular => self.client.set_layout(cred, fid, template).await.map(drop),
                    FileType::Directory => self.client.set_default_layout(cred, fid, Some(template)).await,
                    _ => Err(unsupported(name)),
                }
            }
            b"sateen.hsm" => {
                let operation = hsm_operation(value).ok_or_else(|| {
                    let what = "sateen.hsm can be set to restore, release, archive, remove, cancel, set=N or clear=N";
                    FsError::new(FsCode::Invalid, what)
                })?;
                let asked = gone_is_stale(self.client.hsm_request(cred, fid, operation).await);
                // As Lustre says it of a file that is not archived, or changed since.
                asked.map_err(
                    |e| if e.code == FsCode::Invalid { FsError { code: FsCode::NotPermitted, ..e } } else { e },
                )
            }
            _ if name.starts_with(VIRTUAL) => Err(FsError::new(
                FsCode::NotPermitted,
                format!("attribute {} cannot be set", String::from_utf8_lossy(name)),
            )),
            _ if is_unsupported(name) => Err(unsupported(name)),
            _ => {
                let mode = match flags {
                    libc::XATTR_CREATE => XattrMode::Create,
                    libc::XATTR_REPLACE => XattrMode::Replace,
                    _ => XattrMode::Set,
                };
                let set = self.client.setxattr(cred, fid, &XattrName::parse(name)?, value, mode).await;
                self.xattr_hints.given(ino, &gone_is_stale(set)?);
                Ok(())
            }
        }
    }

    /// Names of the stored attributes, each with its NUL.
    pub async fn listxattr(&self, cred: &Credential, ino: u64) -> FsResult<Vec<u8>> {
        let names = gone_is_stale(self.client.listxattr(cred, self.fid(ino)?).await)?;
        let mut list = Vec::new();
        for name in names {
            list.extend_from_slice(name.as_bytes());
            list.push(0);
        }
        if list.len() > XATTR_LIST_BYTES_MAX {
            return Err(FsError::new(FsCode::TooBig, format!("attribute names take {} bytes", list.len())));
        }
        Ok(list)
    }

    /// Removes an attribute.
    pub async fn removexattr(&self, cred: &Credential, ino: u64, name: &[u8]) -> FsResult<()> {
        let fid = self.fid(ino)?;
        match name {
            b"sateen.layout" if self.getattr(ino).await?.attr.file_type == FileType::Directory => {
                self.client.set_default_layout(cred, fid, None).await
            }
            _ if name.starts_with(VIRTUAL) => Err(FsError::new(
                FsCode::NotPermitted,
                format!("attribute {} cannot be removed", String::from_utf8_lossy(name)),
            )),
            _ if is_unsupported(name) => Err(unsupported(name)),
            _ => {
                let removed = self.client.removexattr(cred, fid, &XattrName::parse(name)?).await;
                self.xattr_hints.given(ino, &gone_is_stale(removed)?);
                Ok(())
            }
        }
    }
}

/// What is asked for by setting `sateen.hsm`.
fn hsm_operation(value: &[u8]) -> Option<HsmOperation> {
    let flags = |text: &str| text.parse().ok().map(HsmFlags);
    Some(match std::str::from_utf8(value).ok()? {
        "restore" => HsmOperation::Restore,
        "release" => HsmOperation::Release,
        "archive" => HsmOperation::Archive,
        "remove" => HsmOperation::Remove,
        "cancel" => HsmOperation::Cancel,
        text => match text.split_once('=')? {
            ("set", bits) => HsmOperation::Flags { set: flags(bits)?, clear: HsmFlags::default() },
            ("clear", bits) => HsmOperation::Flags { set: HsmFlags::default(), clear: flags(bits)? },
            _ => return None,
        },
    })
}

fn is_unsupported(name: &[u8]) -> bool {
    name.starts_with(SYSTEM) && name != ACCESS_XATTR && name != DEFAULT_XATTR
}

fn json_bytes(value: &impl serde::Serialize) -> FsResult<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| FsError::new(FsCode::Internal, format!("cannot print as JSON: {e}")))
}

fn no_data(name: &[u8]) -> FsError {
    FsError::new(FsCode::NoData, format!("no attribute {}", String::from_utf8_lossy(name)))
}

fn unsupported(name: &[u8]) -> FsError {
    FsError::new(FsCode::NotSupported, format!("attribute {} is not supported", String::from_utf8_lossy(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_words_or_bits() {
        let flags = |set, clear| HsmOperation::Flags { set: HsmFlags(set), clear: HsmFlags(clear) };
        assert_eq!(hsm_operation(b"restore"), Some(HsmOperation::Restore));
        assert_eq!(hsm_operation(b"cancel"), Some(HsmOperation::Cancel));
        assert_eq!(hsm_operation(b"set=48"), Some(flags(48, 0)));
        assert_eq!(hsm_operation(b"clear=16"), Some(flags(0, 16)));
        for bad in [&b""[..], b"Restore", b"set=", b"set=-1", b"set=4294967296", b"keep=1", b"clear=0x10", b"\xff"] {
            assert_eq!(hsm_operation(bad), None, "{bad:?}");
        }
    }
}
