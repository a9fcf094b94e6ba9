//! Imports of which several ranges of keys are listed at once.

use sateen_types::limits::IMPORT_RANGES_MAX;
use sateen_types::repository::KeyRange;

use super::*;

#[test]
fn ranges_of_an_import_come_in_any_order_and_what_is_left_is_known() {
    on_every_store(|b| {
        let l = linked(b);
        let range = |after: &str, end: Option<&str>| KeyRange { after: after.into(), end: end.map(Into::into) };
        let tell = |b: &mut Bench<'_>, range: KeyRange, keys: &[&str]| {
            let objects = keys.iter().map(|key| object(key, 1, "e")).collect();
            let (last, after) = (range.end.is_none(), range.end.unwrap_or_default());
            let page = ImportPage { from: range.after, objects, after, skipped: vec![], known: vec![], last, stamp: 0 };
            let looked = b.look();
            match change(b, Change::Import { id: l.id, run: 1, page, looked }) {
                Ok(Answer::Import(status)) => Ok((status.objects, status.state)),
                Ok(other) => panic!("{other:?}"),
                Err(e) => Err(e.code),
            }
        };
        let left = |b: &Bench<'_>| repository::get(&*b.view(), l.id).expect("there").left;
        assert_eq!(left(b), [KeyRange::ALL]);
        assert_eq!(tell(b, range("m", Some("p")), &["n", "p"]), Ok((2, ImportState::Running)));
        assert_eq!(left(b), [range("", Some("m")), range("p", None)]);
        assert_eq!(tell(b, range("q", None), &["r"]), Ok((3, ImportState::Running)));
        assert_eq!(tell(b, range("", Some("m")), &["a", "b/c", "m"]), Ok((6, ImportState::Running)));
        assert_eq!(tell(b, range("", Some("p")), &["a", "n"]), Ok((6, ImportState::Running)), "that is known");
        assert_eq!(left(b), [range("p", Some("q"))]);
        assert_eq!(tell(b, range("p", Some("q")), &[]), Ok((6, ImportState::Done)));
        assert_eq!(left(b), []);
        for name in ["a", "m", "n", "p", "r"] {
            b.lookup(l.root, name).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        // Somebody who begins everywhere and ends nothing is refused before the row of the link grows.
        change(b, Change::StartImport { id: l.id, sync: Sync::No }).expect("starts");
        let begin = |b: &mut Bench<'_>, n: usize| {
            let page = ImportPage {
                from: format!("k{n:03}").into_bytes(),
                objects: vec![],
                after: format!("k{n:03}x").into_bytes(),
                skipped: vec![],
                known: vec![],
                last: false,
                stamp: 0,
            };
            let looked = b.look();
            change(b, Change::Import { id: l.id, run: 2, page, looked }).map(drop)
        };
        for n in 1..IMPORT_RANGES_MAX {
            begin(b, n).expect("has room");
        }
        assert_eq!(begin(b, IMPORT_RANGES_MAX).map_err(|e| e.code), Err(FsCode::Invalid));
    });
}

#[test]
fn a_directory_that_was_made_for_what_is_in_it_takes_what_its_object_says() {
    on_every_store(|b| {
        let l = linked(b);
        page(b, l.id, 1, &[object("d/x", 1, "e"), object("e/x", 1, "e")], false).expect("imports");
        let e = b.lookup(l.root, "e").expect("made").fid;
        b.setattr(&Credential::ROOT, e, |op| op.uid = Some(7)).expect("changes");
        let said = |key: &str| ImportedObject { mode: Some(0o40700), uid: Some(1000), ..object(key, 0, "d") };
        page(b, l.id, 1, &[], true).expect("ends");
        change(b, Change::StartImport { id: l.id, sync: Sync::No }).expect("starts");
        page(b, l.id, 2, &[said("d/"), said("e/")], true).expect("imports");
        let attr = |b: &Bench<'_>, name: &str| {
            let fid = b.lookup(l.root, name).expect("there").fid;
            let attr = b.attr(fid);
            (attr.mode, attr.uid)
        };
        assert_eq!(attr(b, "d"), (0o700, 1000));
        assert_eq!(attr(b, "e"), (0o755, 7), "somebody here has said otherwise");
    });
}
