//! What `lfs changelog` prints. Pure.

use sateen_types::Timestamp;
use sateen_types::changelog::{ChangeRecord, ChangedName};

/// Extra flag: owner and group of the process follow.
const HAS_OWNER: u32 = 0x1;
/// Extra flag: the name of an attribute follows.
const HAS_XATTR: u32 = 0x8;

/// `INDEX TTNAME HH:MM:SS.nnnnnnnnn YYYY.MM.DD 0xFLAGS t=[FID] ef=0xN u=UID:GID [x=XATTR] [p=[PARENT] NAME]
/// [s=[SOURCE] sp=[PARENT] OLDNAME]`, as Lustre writes it; times are UTC.
pub fn line(r: &ChangeRecord) -> Vec<u8> {
    let nothing = "[0x0:0x0:0x0]".to_owned();
    let target = r.target.map_or(nothing, |fid| fid.to_string());
    let (number, kind) = (r.kind.number(), r.kind.as_str());
    let extra = HAS_OWNER | if r.xattr.is_some() { HAS_XATTR } else { 0 };
    let mut out = format!("{} {number:02}{kind:<5} {} {:#x} t={target} ", r.index, when(r.time), r.flags).into_bytes();
    out.extend(format!("ef={extra:#x} u={}:{}", r.uid, r.gid).into_bytes());
    if let Some(xattr) = &r.xattr {
        out.extend(b" x=");
        out.extend(xattr);
    }
    let name = |out: &mut Vec<u8>, label: &str, name: &ChangedName| {
        out.extend(format!(" {label}={} ", name.parent).into_bytes());
        out.extend(name.name.as_bytes());
    };
    if let Some(named) = &r.name {
        name(&mut out, "p", named);
    }
    if let Some((fid, old)) = &r.source {
        out.extend(format!(" s={fid}").into_bytes());
        name(&mut out, "sp", old);
    }
    out.push(b'\n');
    out
}

/// `12:34:56.000000001 2026.01.02`
fn when(at: Timestamp) -> String {
    let nanos = i32::try_from(at.nanos).unwrap_or(0);
    match jiff::Timestamp::new(at.seconds, nanos) {
        Ok(t) => format!("{}.{:09} {}", t.strftime("%H:%M:%S"), at.nanos, t.strftime("%Y.%m.%d")),
        Err(_) => format!("{}.{:09} -", at.seconds, at.nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::changelog::ChangeType;
    use sateen_types::{Fid, Name};

    fn record(kind: ChangeType) -> ChangeRecord {
        ChangeRecord {
            index: 7,
            kind,
            time: Timestamp { seconds: 1_767_357_296, nanos: 5 },
            flags: 0,
            target: Some(Fid { seq: 0x2_0000_0401, oid: 3, ver: 0 }),
            uid: 1000,
            gid: 100,
            name: None,
            source: None,
            xattr: None,
        }
    }

    fn named(name: &str) -> ChangedName {
        ChangedName { parent: Fid::ROOT, name: Name::parse(name.as_bytes()).expect("a name") }
    }

    #[test]
    fn lines_are_lustres() {
        let text = |r: &ChangeRecord| String::from_utf8(line(r)).expect("UTF-8");
        let create = ChangeRecord { name: Some(named("a b")), ..record(ChangeType::Create) };
        assert_eq!(
            text(&create),
            "7 01CREAT 12:34:56.000000005 2026.01.02 0x0 t=[0x200000401:0x3:0x0] ef=0x1 u=1000:100 \
             p=[0x200000007:0x1:0x0] a b\n"
        );
        let hsm = ChangeRecord { flags: 0x180, ..record(ChangeType::Hsm) };
        assert_eq!(
            text(&hsm),
            "7 16HSM   12:34:56.000000005 2026.01.02 0x180 t=[0x200000401:0x3:0x0] ef=0x1 u=1000:100\n"
        );
        let xattr = ChangeRecord { xattr: Some(b"user.x".to_vec()), ..record(ChangeType::Xattr) };
        assert!(text(&xattr).ends_with(" ef=0x9 u=1000:100 x=user.x\n"), "{}", text(&xattr));
        let source = Some((Fid { seq: 0x2_0000_0401, oid: 9, ver: 0 }, named("old")));
        let rename = ChangeRecord { target: None, name: Some(named("new")), source, ..record(ChangeType::Rename) };
        assert!(
            text(&rename).ends_with(
                " 0x0 t=[0x0:0x0:0x0] ef=0x1 u=1000:100 p=[0x200000007:0x1:0x0] new s=[0x200000401:0x9:0x0] \
                 sp=[0x200000007:0x1:0x0] old\n"
            ),
            "{}",
            text(&rename)
        );
    }
}
