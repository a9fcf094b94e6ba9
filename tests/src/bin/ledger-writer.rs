//! Writes and fsyncs into the directory given until standard input closes; see `sateen_tests::ledger`.

fn main() {
    let mut args = std::env::args_os().skip(1);
    let (Some(kind), Some(dir)) = (args.next(), args.next()) else { panic!("usage: ledger-writer files|versions DIR") };
    sateen_tests::ledger::write_ledger(&kind.to_string_lossy(), dir.as_ref());
}
