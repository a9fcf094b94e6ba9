//! The local file system, used exactly as the mount is used in the case of the same name.

use crate::bench::Bench;
use crate::cases::fuse_seq;
use crate::data::Kind;
use crate::rate::gb_per_second;

/// 1 MiB writes and a final fsync.
pub fn write_fsync(bench: &Bench, kind: Kind) -> anyhow::Result<f64> {
    let path = bench.local_dir().join("local.write");
    let bytes = bench.sizes.durable_bytes;
    rustix::fs::sync();
    let took = fuse_seq::write(bench.blocks(kind), &path, bytes, fuse_seq::BLOCK_WRITES, true);
    let _ = std::fs::remove_file(&path);
    Ok(gb_per_second(bytes, took?))
}
