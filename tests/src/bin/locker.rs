//! Takes locks as standard input says; see `sateen_tests::locker`.

fn main() {
    sateen_tests::locker::serve();
}
