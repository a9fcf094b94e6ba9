//! Ranges of keys: what is left to be listed of a bucket.

/// Keys behind `after`, up to `end` and with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRange {
    /// Empty: from the first key.
    pub after: Vec<u8>,
    /// `None`: to the last key.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// Every key.
    pub const ALL: KeyRange = KeyRange { after: Vec::new(), end: None };

    /// Whether a key is in it.
    pub fn has(&self, key: &[u8]) -> bool {
        self.after.as_slice() < key && self.end.as_deref().is_none_or(|end| key <= end)
    }

    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        self.end.as_deref().is_some_and(|end| end <= self.after.as_slice())
    }

    /// What is in both.
    pub fn and(&self, other: &KeyRange) -> KeyRange {
        let end = match (&self.end, &other.end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.as_ref().or(b.as_ref()),
        };
        KeyRange { after: self.after.clone().max(other.after.clone()), end: end.cloned() }
    }

    /// What is in this one and not in `other`: at most two ranges.
    pub fn without(&self, other: &KeyRange) -> impl Iterator<Item = KeyRange> + use<> {
        let before = KeyRange { after: Vec::new(), end: Some(other.after.clone()) };
        let behind = other.end.clone().map(|end| KeyRange { after: end, end: None });
        let parts = match other.is_empty() {
            true => [Some(self.clone()), None],
            false => [Some(self.and(&before)), behind.map(|behind| self.and(&behind))],
        };
        parts.into_iter().flatten().filter(|part| !part.is_empty())
    }
}

/// Takes `done` off ranges that have no key in common, and keeps their order.
pub fn take_off(left: &mut Vec<KeyRange>, done: &KeyRange) {
    *left = left.iter().flat_map(|range| range.without(done)).collect();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(after: &str, end: Option<&str>) -> KeyRange {
        KeyRange { after: after.into(), end: end.map(Into::into) }
    }

    #[test]
    fn a_range_has_its_end_and_not_its_beginning() {
        let some = range("b", Some("d"));
        assert!(!some.has(b"b") && some.has(b"b\0") && some.has(b"d") && !some.has(b"d\0"));
        assert!(KeyRange::ALL.has(b"\xff") && !KeyRange::ALL.is_empty());
        assert!(range("b", Some("b")).is_empty() && range("c", Some("b")).is_empty());
    }

    #[test]
    fn what_is_done_in_the_middle_leaves_both_sides() {
        let mut left = vec![KeyRange::ALL];
        take_off(&mut left, &range("b", Some("d")));
        assert_eq!(left, [range("", Some("b")), range("d", None)]);
        take_off(&mut left, &range("d", Some("d")));
        take_off(&mut left, &range("a", Some("e")));
        assert_eq!(left, [range("", Some("a")), range("e", None)]);
        take_off(&mut left, &range("", None));
        assert_eq!(left, []);
    }

    fn any_range() -> impl Strategy<Value = KeyRange> {
        ("[a-c]{0,2}", proptest::option::of("[a-c]{0,2}"))
            .prop_map(|(after, end)| KeyRange { after: after.into_bytes(), end: end.map(String::into_bytes) })
    }

    proptest! {
        #[test]
        fn each_key_is_left_until_a_range_with_it_is_done(done in proptest::collection::vec(any_range(), 0..8)) {
            let mut left = vec![KeyRange::ALL];
            done.iter().for_each(|done| take_off(&mut left, done));
            let chars = ["", "a", "b", "c"];
            for key in chars.iter().flat_map(|a| chars.iter().map(move |b| format!("{a}{b}"))).filter(|k| !k.is_empty()) {
                let having = left.iter().filter(|range| range.has(key.as_bytes())).count();
                let wanted = usize::from(!done.iter().any(|range| range.has(key.as_bytes())));
                prop_assert_eq!(having, wanted, "{:?} in {:?}", key, left);
            }
            prop_assert!(left.windows(2).all(|pair| pair[0].end.as_ref().is_some_and(|end| *end <= pair[1].after)));
        }
    }
}
