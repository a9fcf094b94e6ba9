//! `sateen`: the one command. Also what `lfs` and `mount.sateen` are when they are links to it.

/// The mount process moves bulk data; jemalloc keeps its buffers from fragmenting and is faster with threads.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    sateen_cli::main()
}
