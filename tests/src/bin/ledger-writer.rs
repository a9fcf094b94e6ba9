//! Writes and fsyncs files into the directory given until standard input closes; see `sateen_tests::ledger`.

fn main() {
    let dir = std::env::args_os().nth(1).expect("usage: ledger-writer DIR");
    sateen_tests::ledger::write_ledger(dir.as_ref());
}
