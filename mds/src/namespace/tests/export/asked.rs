//! The same with what owners ask for single files: their copies are removed, and files are kept out of the repository.

use super::ops::{apply, asked};
use super::*;

const NONE: HsmFlags = HsmFlags(0);

impl World<'_> {
    /// A file is never to be archived, or may be again.
    pub(super) fn stay(&mut self, fid: Fid, on: bool) {
        let (set, clear) = if on { (HsmFlags::NO_ARCHIVE, NONE) } else { (NONE, HsmFlags::NO_ARCHIVE) };
        change(&mut self.b, Change::Flags { fid, who: Credential::ROOT, set, clear }).expect("decides");
    }

    /// Every file below the link.
    fn files(&self, dir: Fid, out: &mut BTreeSet<Fid>) {
        for n in self.b.list(dir) {
            let attr = self.b.lookup(dir, &n).expect("listed");
            match attr.file_type {
                FileType::Directory => self.files(attr.fid, out),
                FileType::Regular => drop(out.insert(attr.fid)),
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_was_removed_or_kept_out_is_there_again_when_somebody_asks(ops in asked(0)) {
        let store = MemStore::default();
        let mut w = World::new(&store);
        for op in &ops {
            apply(&mut w, op);
        }
        w.finish();
        let mut files = BTreeSet::new();
        w.files(w.root, &mut files);
        for fid in files {
            // Nothing of it is lost: what is not here is in its object.
            w.data_of(fid);
            w.stay(fid, false);
        }
        exported(&mut w.b, ExportChange::Start { id: w.id, path: None }).expect("starts");
        w.finish();
        let mut expected = BTreeMap::new();
        w.expected(w.root, "", &mut expected);
        let found: Objects = w.bucket.iter().map(|(key, o)| (key.clone(), (o.data.clone(), o.attributes))).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(export::conflict_count(&*w.b.view(), w.id).expect("reads"), 0);
        let rows = w.b.view().scan(crate::store::Table::Exports, b"g", None, 10).expect("reads");
        prop_assert!(rows.is_empty(), "{:?}", rows);
    }

    #[test]
    fn removals_leave_objects_of_others_alone(ops in asked(6)) {
        let store = MemStore::default();
        let mut w = World::new(&store);
        let mut foreign: BTreeMap<Vec<u8>, Object> = BTreeMap::new();
        for op in ops.iter().map(Some).chain([None]) {
            match op {
                Some(op) => apply(&mut w, op),
                None => w.finish(),
            }
            if matches!(op, Some(Op::Foreign(..) | Op::ForeignGone(_))) {
                foreign = w.bucket.iter().filter(|(_, o)| o.foreign).map(|(k, o)| (k.clone(), o.clone())).collect();
            }
            for (key, object) in &foreign {
                prop_assert_eq!(w.bucket.get(key), Some(object), "after {:?}", op);
            }
        }
    }
}

#[test]
fn a_removed_copy_goes_with_those_of_all_names_and_the_file_stays() {
    let store = MemStore::default();
    let mut w = World::new(&store);
    let fid = w.b.create(w.root, "a").expect("makes");
    w.write(fid);
    w.b.link(fid, w.root, "b").expect("links");
    w.finish();
    assert_eq!(w.bucket.len(), 2);
    w.release(fid);
    let refused = exported(&mut w.b, ExportChange::Remove { fid, who: Credential::ROOT });
    assert_eq!(refused.expect_err("its bytes are there only").code, sateen_types::FsCode::Invalid);
    w.load(fid);
    let who = super::super::bench::ALICE;
    let refused = exported(&mut w.b, ExportChange::Remove { fid, who });
    assert_eq!(refused.expect_err("not hers").code, sateen_types::FsCode::NotPermitted);
    exported(&mut w.b, ExportChange::Remove { fid, who: Credential::ROOT }).expect("notes");
    assert!(repository::hsm(&*w.b.view(), fid).expect("reads").is_none());
    w.finish();
    assert!(w.bucket.is_empty(), "{:?}", w.bucket);
    assert!(w.b.lookup(w.root, "b").is_ok());
    let gone = exported(&mut w.b, ExportChange::Remove { fid, who: Credential::ROOT });
    assert_eq!(gone.expect_err("nothing is there").code, sateen_types::FsCode::NoData);
    // It changes: it is new to the repository.
    w.write(fid);
    w.finish();
    assert_eq!(w.bucket.len(), 2);
}

#[test]
fn an_object_that_somebody_replaced_is_not_removed() {
    let store = MemStore::default();
    let mut w = World::new(&store);
    let fid = w.b.create(w.root, "a").expect("makes");
    w.write(fid);
    w.finish();
    let theirs = Object { etag: "f1".into(), data: "x".into(), attributes: (0, 0, 0), number: 0, foreign: true };
    w.bucket.insert(b"a".to_vec(), theirs.clone());
    exported(&mut w.b, ExportChange::Remove { fid, who: Credential::ROOT }).expect("notes");
    w.finish();
    assert_eq!(w.bucket.get(&b"a"[..]), Some(&theirs));
    assert_eq!(export::conflict_count(&*w.b.view(), w.id).expect("reads"), 1);
}
