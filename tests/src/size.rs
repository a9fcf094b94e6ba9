//! How much a proof does: its share in CI, or its full size.
//!
//! `SATEEN_TEST_PERCENT=100` asks for the full size, other numbers for that part of it. See `docs/testing.md`.

/// How much of something the test `test` does: `ci` unless `SATEEN_TEST_PERCENT` says what part of `full`. At least one.
pub fn amount(test: &str, ci: u64, full: u64) -> u64 {
    let amount = match std::env::var("SATEEN_TEST_PERCENT") {
        Ok(text) => {
            let percent: u64 =
                text.parse().unwrap_or_else(|e| panic!("SATEEN_TEST_PERCENT={text:?} is no number: {e}"));
            (full * percent).div_ceil(100).max(1)
        }
        Err(_) => ci,
    };
    eprintln!("{test}: {amount} of {full} (SATEEN_TEST_PERCENT=100 does all)");
    amount
}
