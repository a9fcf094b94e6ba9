//! Extended attributes. `user.*`: regular files and directories, by permission bits. `trusted.*`: root. `security.*`:
//! everybody reads, root writes. Of `system.*` there are the two that stand for ACLs ([`super::acl`]); anything else is not
//! supported.

use sateen_types::attr::FILE_CAPABILITIES_XATTR;
use sateen_types::limits::{XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use sateen_types::op::{MutationReply, XattrMode};
use sateen_types::{Credential, Fid, FsCode, FsError, FsResult, XattrName};

use super::acl::{self, Kind};
use super::perm::{Access, S_ISVTX, access, root};
use super::tree;
use crate::command::Inputs;
use crate::store::records::Inode;
use crate::store::{ReadTxn, Row, Table, Txn, keys};

/// More names than this cannot fit into [`XATTR_LIST_BYTES_MAX`].
const NAMES_MAX: usize = XATTR_LIST_BYTES_MAX / 2;

fn no_data(fid: Fid, name: &XattrName) -> FsError {
    FsError::new(FsCode::NoData, format!("{fid} has no attribute {name:?}"))
}

/// Whether `who` may use an attribute of this name space at all.
fn check(inode: &Inode, who: &Credential, name: &XattrName, wanted: Access) -> FsResult<()> {
    let bytes = name.as_bytes();
    let (space, rest) = match bytes.iter().position(|b| *b == b'.') {
        Some(dot) => (&bytes[..dot], &bytes[dot + 1..]),
        None => (bytes, &b""[..]),
    };
    let writes = wanted == Access::WRITE;
    match space {
        b"user" | b"trusted" | b"security" if rest.is_empty() => {
            Err(FsError::new(FsCode::Invalid, format!("attribute name {name:?} ends after its name space")))
        }
        b"user" => check_user(inode, who, name, wanted),
        b"trusted" if writes => root(who, "set trusted.* attributes"),
        // Linux: for others they are not there.
        b"trusted" if who.uid != 0 => Err(FsError::new(FsCode::NoData, format!("no attribute {name:?}"))),
        b"security" if writes => root(who, "set security.* attributes"),
        b"trusted" | b"security" => Ok(()),
        _ => Err(FsError::new(FsCode::NotSupported, format!("attribute {name:?} is in no supported name space"))
            .with_hint("use user.*, trusted.*, security.* or one of the ACLs")),
    }
}

fn check_user(inode: &Inode, who: &Credential, name: &XattrName, wanted: Access) -> FsResult<()> {
    let writes = wanted == Access::WRITE;
    if !inode.is_dir() && !inode.is_regular() {
        let code = if writes { FsCode::NotPermitted } else { FsCode::NoData };
        return Err(FsError::new(code, format!("{name:?}: only files and directories have user attributes")));
    }
    let foreign = who.uid != 0 && who.uid != inode.uid;
    if writes && inode.is_dir() && inode.mode & S_ISVTX != 0 && foreign {
        return Err(FsError::new(FsCode::NotPermitted, format!("{name:?}: the directory is sticky and not yours")));
    }
    access(inode, who, wanted)
}

/// Sets one.
pub fn set(
    tx: &mut dyn Txn,
    who: &Credential,
    fid: Fid,
    name: &XattrName,
    value: &[u8],
    mode: XattrMode,
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    let mut inode = tree::inode(tx, fid)?;
    if let Some(kind) = Kind::of(name) {
        // XATTR_CREATE and XATTR_REPLACE mean nothing here, in Linux as well.
        return acl::set(tx, who, (fid, inode), kind, value, inputs);
    }
    check(&inode, who, name, Access::WRITE)?;
    if value.len() > XATTR_VALUE_BYTES_MAX {
        return Err(FsError::new(FsCode::TooBig, format!("attribute value has {} bytes", value.len())));
    }
    let key = keys::xattr(fid, name.as_bytes());
    let old = tx.get(Table::Xattrs, &key)?;
    match (mode, &old) {
        (XattrMode::Create, Some(_)) => {
            return Err(FsError::new(FsCode::Exists, format!("{fid} has attribute {name:?} already")));
        }
        (XattrMode::Replace, None) => return Err(no_data(fid, name)),
        _ => {}
    }
    refuse_overflow(tx, fid, name, value, old.as_deref())?;
    tx.put(Table::Xattrs, key, value.to_vec());
    inode.has_capabilities |= name.as_bytes() == FILE_CAPABILITIES_XATTR;
    inode.attr_changed(inputs.now);
    tree::put_inode(tx, fid, &inode);
    Ok(MutationReply::Attr(inode.attr(fid)))
}

/// All names of a file fit one list, and all names and values together are bounded by the same number of bytes
/// again, so that no file can hoard the MDT.
fn refuse_overflow(tx: &dyn ReadTxn, fid: Fid, name: &XattrName, value: &[u8], old: Option<&[u8]>) -> FsResult<()> {
    let rows = all(tx, fid)?;
    let names: usize = rows.iter().map(|(key, _)| key.len() - 16 + 1).sum();
    let values: usize = rows.iter().map(|(_, value)| value.len()).sum();
    let names = if old.is_none() { names + name.as_bytes().len() + 1 } else { names };
    let values = values - old.map_or(0, <[u8]>::len) + value.len();
    if names > XATTR_LIST_BYTES_MAX || values > XATTR_TOTAL_BYTES_MAX {
        return Err(FsError::new(
            FsCode::NoSpace,
            format!("{fid} would have {names} bytes of attribute names and {values} of values"),
        )
        .with_hint("remove attributes of the file first"));
    }
    Ok(())
}

/// All values of one file together, bytes.
const XATTR_TOTAL_BYTES_MAX: usize = 2 * XATTR_VALUE_BYTES_MAX;

/// The data or the owner of a file changed: whatever it is now, it was not trusted with capabilities.
pub fn drop_capabilities(tx: &mut dyn Txn, fid: Fid, inode: &mut Inode) {
    if std::mem::take(&mut inode.has_capabilities) {
        tx.delete(Table::Xattrs, keys::xattr(fid, FILE_CAPABILITIES_XATTR));
    }
}

/// Removes one.
pub fn remove(
    tx: &mut dyn Txn,
    who: &Credential,
    fid: Fid,
    name: &XattrName,
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    let mut inode = tree::inode(tx, fid)?;
    if let Some(kind) = Kind::of(name) {
        return acl::remove(tx, who, (fid, inode), kind, inputs);
    }
    check(&inode, who, name, Access::WRITE)?;
    let key = keys::xattr(fid, name.as_bytes());
    if tx.get(Table::Xattrs, &key)?.is_none() {
        return Err(no_data(fid, name));
    }
    tx.delete(Table::Xattrs, key);
    inode.has_capabilities &= name.as_bytes() != FILE_CAPABILITIES_XATTR;
    inode.attr_changed(inputs.now);
    tree::put_inode(tx, fid, &inode);
    Ok(MutationReply::Attr(inode.attr(fid)))
}

/// The value of one.
pub fn get(tx: &dyn ReadTxn, who: &Credential, fid: Fid, name: &XattrName) -> FsResult<Vec<u8>> {
    let inode = tree::inode(tx, fid)?;
    if let Some(kind) = Kind::of(name) {
        return acl::get(&inode, kind)?.ok_or_else(|| no_data(fid, name));
    }
    check(&inode, who, name, Access::READ)?;
    tx.get(Table::Xattrs, &keys::xattr(fid, name.as_bytes()))?.ok_or_else(|| no_data(fid, name))
}

/// The names; `trusted.*` only for root.
pub fn list(tx: &dyn ReadTxn, who: &Credential, fid: Fid) -> FsResult<Vec<Vec<u8>>> {
    let mut names = acl::names(&tree::inode(tx, fid)?);
    for (key, _) in all(tx, fid)? {
        let (_, name) = keys::parse_xattr(&key)?;
        if who.uid == 0 || !name.starts_with(b"trusted.") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

fn all(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Vec<Row>> {
    tx.scan(Table::Xattrs, &keys::fid(fid), None, NAMES_MAX)
}
