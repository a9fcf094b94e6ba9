//! Files with several names, whose objects others replace.

use sateen_types::repository::{ConflictPolicy, ImportPage, ImportStatus, ImportedObject};

use super::*;
use crate::namespace::repository::Looked;
use crate::store::records::Sync;

impl World<'_> {
    /// What others would list: the whole bucket.
    fn import(&mut self) -> ImportStatus {
        let id = self.id;
        change(&mut self.b, Change::StartImport { id, sync: Sync::Asked }).expect("starts");
        let run = repository::get(&*self.b.view(), id).expect("there").run;
        let listed = |(key, object): (&Vec<u8>, &Object)| ImportedObject {
            key: key.clone(),
            size: 10,
            etag: object.etag.clone(),
            modified: Timestamp { seconds: 1, nanos: 0 },
            mode: Some(object.attributes.0),
            uid: Some(object.attributes.1),
            gid: Some(object.attributes.2),
            atime: None,
            mtime: None,
            symlink: None,
        };
        let objects: Vec<ImportedObject> = self.bucket.iter().map(listed).collect();
        let after = objects.last().map(|o| o.key.clone()).unwrap_or_default();
        let page = ImportPage {
            from: Vec::new(),
            objects,
            after,
            skipped: Vec::new(),
            known: Vec::new(),
            last: true,
            stamp: 0,
        };
        let looked = Looked { stamp: self.number(), ..self.b.look() };
        match change(&mut self.b, Change::Import { id, run, page, looked }).expect("imports") {
            Answer::Import(status) => status,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_name_whose_object_was_replaced_takes_the_others_with_it_once() {
    for replaced in ["a", "b"] {
        let store = MemStore::default();
        let mut w = World::with(&store, |settings| {
            settings.auto_import = EVERY;
            settings.conflict = ConflictPolicy::RepositoryWins;
        });
        let fid = w.b.create(w.root, "a").expect("makes");
        w.write(fid);
        w.b.link(fid, w.root, "b").expect("links");
        w.finish();
        assert_eq!(w.bucket.len(), 2);
        let attributes = w.bucket[&b"a"[..]].attributes;
        let theirs = Object { etag: "f1".into(), data: "theirs".into(), attributes, number: 0, foreign: true };
        w.bucket.insert(replaced.into(), theirs);
        assert_eq!(w.import().changed, 1, "{replaced}");
        assert_eq!(w.data_of(fid), "theirs");
        // Not the old object of the other name: that is stored anew.
        assert_eq!(w.import().changed, 0, "{replaced}");
        w.finish();
        assert_eq!(w.data_of(fid), "theirs");
        let data: Vec<&str> = w.bucket.values().map(|o| o.data.as_str()).collect();
        assert_eq!(data, ["theirs", "theirs"], "{replaced}");
        assert_eq!(w.import().changed, 0, "{replaced}");
        assert_eq!(export::conflict_count(&*w.b.view(), w.id).expect("reads"), 0);
    }
}
