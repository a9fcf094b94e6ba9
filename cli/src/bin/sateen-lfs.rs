//! `sateen-lfs`: Lustre's `lfs`.

fn main() -> std::process::ExitCode {
    sateen_cli::lfs_main()
}
