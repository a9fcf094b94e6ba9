//! Where a range of keys is cut in two, so that both are listed at once.
//!
//! A store lists keys one after the other, a thousand at a time; only by keys that are guessed can it be asked for a second range.
//! Guesses halve what may be between a key that is listed and the end. Behind a guess there is a key, and the range is cut there; or
//! there is none, and the next guess is nearer. So the front parts that all keys have in common are found within some ten guesses each.

use sateen_types::limits::KEY_BYTES_MAX;

use crate::remote::RemoteError;

/// Guesses for one cut.
pub const GUESSES_MAX: usize = 64;
/// Guesses are made of these, so that every store takes them.
const FIRST: u8 = 0x20;
const LAST: u8 = 0x7e;

/// A key between two others, neither of which it is; `None` behind is the end of all keys. `None` if there is nothing worth a guess.
pub fn middle(before: &str, behind: Option<&str>) -> Option<String> {
    let (low, high) = (before.as_bytes(), behind.map(str::as_bytes));
    let same = high.map_or(0, |high| low.iter().zip(high).take_while(|(a, b)| a == b).count());
    let at = |i: usize| low.get(i).copied().unwrap_or(FIRST - 1);
    let with = |head: &[u8], byte: u8| {
        let guess = String::from_utf8([head, &[byte]].concat()).ok()?;
        (guess.as_str() > before && behind.is_none_or(|behind| guess.as_str() < behind)).then_some(guess)
    };
    // Where they differ first, there may be something between.
    if let Some(high) = high
        && let Some(&limit) = high.get(same)
    {
        let (from, to) = (at(same), limit.min(LAST + 1));
        if to > from + 1
            && let Some(guess) = with(&low[..same], (from + (to - from) / 2).max(FIRST))
        {
            return Some(guess);
        }
        // The front part of the one behind, which what is right before it has as well.
        if same + 1 < high.len()
            && let Some(guess) = with(&high[..same], limit)
        {
            return Some(guess);
        }
    }
    // Everything that begins as the one before does, and goes on with more.
    let from = if behind.is_some() { same + 1 } else { 0 };
    (from..=low.len()).find_map(|i| {
        let byte = at(i);
        (byte < LAST).then(|| with(&low[..i], byte + (LAST + 1 - byte).div_ceil(2)))?
    })
}

/// Where to cut what is behind `before` and not behind `end`; and, if that was found out, a key behind which there is nothing up to
/// `end`. `first_behind` gives the first key behind another one.
pub async fn cut<F>(
    before: &str,
    end: Option<&[u8]>,
    mut nothing_behind: Option<String>,
    first_behind: impl Fn(String) -> F,
) -> Result<(Option<String>, Option<String>), RemoteError>
where
    F: Future<Output = Result<Option<Vec<u8>>, RemoteError>>,
{
    for _ in 0..GUESSES_MAX {
        let guess = middle(before, nothing_behind.as_deref()).filter(|guess| guess.len() <= KEY_BYTES_MAX);
        let Some(guess) = guess else { break };
        let found = first_behind(guess.clone()).await?;
        if found.is_some_and(|key| end.is_none_or(|end| key.as_slice() <= end)) {
            return Ok((Some(guess), nothing_behind));
        }
        nothing_behind = Some(guess);
    }
    Ok((None, nothing_behind))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn guesses_halve_what_may_be_between() {
        assert_eq!(middle("a", Some("c")).as_deref(), Some("b"));
        assert_eq!(middle("a9", Some("b5")).as_deref(), Some("b"), "the front part of what is behind");
        assert_eq!(middle("a9", Some("b")).as_deref(), Some("a\\"));
        assert_eq!(middle("a", Some("a!")), Some("a ".to_owned()));
        assert_eq!(middle("~~", None).as_deref(), Some("~~O"));
        assert!(middle("é1", None).is_some_and(|guess| guess.as_str() > "é1"));
    }

    proptest! {
        #[test]
        fn a_guess_is_between(before in "[ -~é\u{10ffff}]{0,6}", behind in proptest::option::of("[ -~é\u{10ffff}]{0,6}")) {
            if let Some(guess) = middle(&before, behind.as_deref()) {
                prop_assert!(guess > before, "{:?}", guess);
                prop_assert!(behind.is_none_or(|behind| guess < behind));
            }
        }

        #[test]
        fn keys_are_cut_where_there_are_some_behind(keys in proptest::collection::btree_set("(img|train/n0)[0-9]{6}", 2..200)) {
            let keys: BTreeSet<Vec<u8>> = keys.into_iter().map(String::into_bytes).collect();
            let first = String::from_utf8(keys.first().expect("not empty").clone()).expect("text");
            let asked = std::cell::Cell::new(0);
            let behind = |guess: String| {
                asked.set(asked.get() + 1);
                let found = keys.range((Bound::Excluded(guess.into_bytes()), Bound::Unbounded)).next().cloned();
                std::future::ready(Ok(found))
            };
            let (cut, _) = futures::executor::block_on(cut(&first, None, None, behind)).expect("never fails");
            let cut = cut.expect("another key follows");
            prop_assert!(keys.last().is_some_and(|last| cut.as_bytes() < last.as_slice()), "{:?}", cut);
            prop_assert!(asked.get() <= GUESSES_MAX);
        }
    }
}
