//! One suite for every store: it must behave like a sorted map, also through overlays.

use proptest::prelude::*;
use sateen_types::FsResult;

use super::*;

/// Runs `test` on each kind of store, empty.
pub fn on_every_store(test: impl Fn(&dyn Store)) {
    test(&MemStore::default());
    let dir = tempfile::tempdir().expect("temporary directory");
    let rocks = RocksStore::open(dir.path(), Table::OF_FILE_SYSTEM, RocksOptions::default()).expect("opens");
    test(&rocks);
}

fn put(store: &dyn Store, rows: &[(&[u8], Option<&[u8]>)]) {
    let snapshot = store.snapshot();
    let mut tx = Overlay::new(&*snapshot);
    for (key, value) in rows {
        match value {
            Some(value) => tx.put(Table::Dentries, key.to_vec(), value.to_vec()),
            None => tx.delete(Table::Dentries, key.to_vec()),
        }
    }
    let changes = tx.into_changes();
    drop(snapshot);
    store.commit(&changes).expect("commits");
}

fn keys_of(rows: FsResult<Vec<Row>>) -> Vec<Vec<u8>> {
    rows.expect("scans").into_iter().map(|(k, _)| k).collect()
}

#[test]
fn scans_see_a_prefix_in_order_behind_a_key_up_to_a_limit() {
    on_every_store(|store| {
        put(
            store,
            &[(b"a1", Some(b"")), (b"b", Some(b"")), (b"b\xff", Some(b"")), (b"b1", Some(b"x")), (b"c", Some(b""))],
        );
        let view = store.snapshot();
        assert_eq!(keys_of(view.scan(Table::Dentries, b"b", None, 9)), [&b"b"[..], b"b1", b"b\xff"]);
        assert_eq!(keys_of(view.scan(Table::Dentries, b"b", Some(b"b"), 9)), [&b"b1"[..], b"b\xff"]);
        assert_eq!(keys_of(view.scan(Table::Dentries, b"b", Some(b"a"), 1)), [&b"b"[..]]);
        assert_eq!(keys_of(view.scan(Table::Dentries, b"b", Some(b"c"), 9)), Vec::<Vec<u8>>::new());
        assert_eq!(keys_of(view.scan(Table::Dentries, b"", None, 9)).len(), 5);
        assert_eq!(view.get(Table::Dentries, b"b1").expect("reads"), Some(b"x".to_vec()));
        assert_eq!(view.get(Table::Inodes, b"b1").expect("reads"), None, "tables are apart");
        for order in [["c", "nothing", "b1", "c"], ["b", "b0", "b1", "c"]] {
            let keys = order.map(|key| key.as_bytes().to_vec());
            let one_by_one: Vec<_> = keys.iter().map(|key| view.get(Table::Dentries, key).expect("reads")).collect();
            assert_eq!(view.get_many(Table::Dentries, &keys).expect("reads"), one_by_one);
        }
    });
}

#[test]
fn a_view_stays_as_it_was_when_the_store_moves_on() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = RocksStore::open(dir.path(), Table::OF_FILE_SYSTEM, RocksOptions::default()).expect("opens");
    put(&store, &[(b"a", Some(b"old"))]);
    let view = store.snapshot();
    put(&store, &[(b"a", Some(b"new")), (b"b", Some(b""))]);
    assert_eq!(view.get(Table::Dentries, b"a").expect("reads"), Some(b"old".to_vec()));
    assert_eq!(keys_of(view.scan(Table::Dentries, b"", None, 9)), [b"a"]);
}

#[test]
fn a_directory_that_is_open_cannot_be_opened_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let _first = RocksStore::open(dir.path(), Table::OF_FILE_SYSTEM, RocksOptions::default()).expect("opens");
    let Err(second) = RocksStore::open(dir.path(), Table::OF_FILE_SYSTEM, RocksOptions::default()) else {
        panic!("opened twice");
    };
    assert!(second.hint.is_some());
}

proptest! {
    #[test]
    fn stacked_overlays_read_like_what_they_will_commit(
        base in proptest::collection::btree_map(0u8..20, any::<u8>(), 0..12),
        group in proptest::collection::vec((0u8..20, any::<Option<u8>>()), 0..12),
        command in proptest::collection::vec((0u8..20, any::<Option<u8>>()), 0..12),
        after in any::<Option<u8>>(), limit in 0usize..12,
    ) {
        let store = MemStore::default();
        let rows: Vec<_> = base.iter().map(|(k, v)| ([b'p', *k], [*v])).collect();
        let rows: Vec<(&[u8], Option<&[u8]>)> = rows.iter().map(|(k, v)| (&k[..], Some(&v[..]))).collect();
        put(&store, &rows);
        put(&store, &[(b"o", Some(b"")), (b"q", Some(b""))]);
        let mut model = base;
        let write = |tx: &mut Overlay<'_>, model: &mut std::collections::BTreeMap<u8, u8>, ops: &[(u8, Option<u8>)]| {
            for (k, v) in ops {
                match v {
                    Some(v) => {
                        tx.put(Table::Dentries, vec![b'p', *k], vec![*v]);
                        model.insert(*k, *v);
                    }
                    None => {
                        tx.delete(Table::Dentries, vec![b'p', *k]);
                        model.remove(k);
                    }
                }
            }
        };
        let snapshot = store.snapshot();
        let mut lower = Overlay::new(&*snapshot);
        write(&mut lower, &mut model, &group);
        let mut upper = Overlay::new(&lower);
        write(&mut upper, &mut model, &command);
        let after_key = after.map(|a| vec![b'p', a]);
        let want: Vec<Vec<u8>> = model
            .keys()
            .filter(|k| after.is_none_or(|a| **k > a))
            .take(limit)
            .map(|k| vec![b'p', *k])
            .collect();
        prop_assert_eq!(keys_of(upper.scan(Table::Dentries, b"p", after_key.as_deref(), limit)), want);
        for k in 0..20 {
            prop_assert_eq!(upper.get(Table::Dentries, &[b'p', k]).expect("reads"), model.get(&k).map(|v| vec![*v]));
        }
        let later = upper.into_changes();
        let mut all = lower.into_changes();
        all.absorb(later);
        drop(snapshot);
        store.commit(&all).expect("commits");
        let view = store.snapshot();
        prop_assert_eq!(view.scan(Table::Dentries, b"p", None, 99).expect("scans").len(), model.len());
    }
}
