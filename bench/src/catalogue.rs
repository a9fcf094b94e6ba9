//! Every case: its name, its unit, the limit that bounds it, and how it is measured.
//!
//! Names are an interface: results of different versions are compared by them. Limits stand before the cases that refer
//! to them; a case may itself be the limit of a later one.

use std::fmt;

use anyhow::bail;

use crate::bench::Bench;
use crate::bucket::Distance::{Far, Near};
use crate::cases::{
    client_meta, client_rand, client_seq, fuse_files, fuse_rand, fuse_seq, fuse_small, fuse_tree, repo, repo_visible,
};
use crate::data::Kind::{Half, Random};
use crate::limits::{disk, fuse_null, local, memory, rpc, s3, tcp};

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// 10^9 bytes per second.
    Throughput,
    /// Operations per second.
    Rate,
    /// 10^6 bytes per second of work of any processor.
    Efficiency,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Unit::Throughput => "GB/s",
            Unit::Rate => "1/s",
            Unit::Efficiency => "MB/cpu-s",
        })
    }
}

/// How a case gets its value.
#[derive(Clone, Copy, Debug)]
pub enum Measure {
    /// Measures once.
    By(fn(&Bench) -> anyhow::Result<f64>),
    /// MB per CPU-second of the case of this name, seen while that was measured.
    CpuOf(&'static str),
}

/// One line of the results.
#[derive(Debug)]
pub struct Case {
    /// What it is called in the results, for ever.
    pub name: &'static str,
    /// Unit of the value.
    pub unit: Unit,
    /// Name of the case that bounds it; `None` for a limit.
    pub limit: Option<&'static str>,
    /// Ratio to the limit that must be reached.
    pub floor: Option<f64>,
    /// Value that is enough, whatever the ratio.
    pub enough: Option<f64>,
    /// Where the value comes from.
    pub measure: Measure,
}

impl Case {
    /// Cases that must be measured before this one.
    fn needs(&self) -> impl Iterator<Item = &'static str> {
        let base = match self.measure {
            Measure::By(_) => None,
            Measure::CpuOf(base) => Some(base),
        };
        self.limit.into_iter().chain(base)
    }

    /// The same with a floor.
    const fn floor(self, floor: f64) -> Case {
        Case { floor: Some(floor), ..self }
    }

    /// The same with a value that is enough.
    const fn enough(self, value: f64) -> Case {
        Case { enough: Some(value), ..self }
    }
}

/// A throughput.
const fn bytes(name: &'static str, limit: &'static str, measure: fn(&Bench) -> anyhow::Result<f64>) -> Case {
    Case { name, unit: Unit::Throughput, limit: Some(limit), floor: None, enough: None, measure: Measure::By(measure) }
}

/// A rate.
const fn rate(name: &'static str, limit: &'static str, measure: fn(&Bench) -> anyhow::Result<f64>) -> Case {
    Case { name, unit: Unit::Rate, limit: Some(limit), floor: None, enough: None, measure: Measure::By(measure) }
}

/// A limit.
const fn limit(name: &'static str, unit: Unit, measure: fn(&Bench) -> anyhow::Result<f64>) -> Case {
    Case { name, unit, limit: None, floor: None, enough: None, measure: Measure::By(measure) }
}

/// How often per second something can be done that waits for nothing that could be measured alone.
const fn alone(name: &'static str, measure: fn(&Bench) -> anyhow::Result<f64>) -> Case {
    limit(name, Unit::Rate, measure)
}

/// What the whole machine worked for a throughput.
const fn cpu(name: &'static str, of: &'static str) -> Case {
    Case { name, unit: Unit::Efficiency, limit: None, floor: None, enough: None, measure: Measure::CpuOf(of) }
}

/// All of them, in the order in which they are measured.
static CATALOGUE: [Case; 78] = [
    limit("memcpy", Unit::Throughput, memory::copy),
    limit("crc32c.one_core", Unit::Throughput, memory::crc32c),
    limit("lz4.compress.one_core", Unit::Throughput, memory::lz4_compress),
    limit("lz4.decompress.one_core", Unit::Throughput, memory::lz4_decompress),
    limit("raw_tcp.read", Unit::Throughput, |b| tcp::read(b.sizes.durable_bytes)),
    limit("raw_tcp.write", Unit::Throughput, |b| tcp::write(b.sizes.durable_bytes)),
    limit("raw_tcp.roundtrips", Unit::Rate, tcp::round_trips),
    limit("disk.write.direct", Unit::Throughput, disk::write_direct),
    limit("disk.read.direct", Unit::Throughput, disk::read_direct),
    limit("disk.fsync", Unit::Rate, disk::fsync),
    limit("local.write.seq.random.fsync", Unit::Throughput, |b| local::write_fsync(b, Random)),
    limit("local.write.seq.half.fsync", Unit::Throughput, |b| local::write_fsync(b, Half)),
    limit("fuse_null.read", Unit::Throughput, fuse_null::read),
    limit("null_rpc", Unit::Rate, rpc::null),
    bytes("client.write.seq.random", "raw_tcp.write", |b| client_seq::write(b, Random)).floor(0.40),
    bytes("client.write.seq.half", "lz4.compress.one_core", |b| client_seq::write(b, Half)).floor(1.20),
    bytes("client.write.seq.random.commit", "disk.write.direct", |b| client_seq::write_commit(b, Random)).floor(0.60),
    bytes("client.write.seq.half.commit", "disk.write.direct", |b| client_seq::write_commit(b, Half)),
    bytes("client.read.seq.random", "raw_tcp.read", |b| client_seq::read(b, Random)).floor(0.60),
    bytes("client.read.seq.half", "lz4.decompress.one_core", |b| client_seq::read(b, Half)).floor(0.50),
    rate("client.read.4k.rand", "raw_tcp.roundtrips", client_rand::read).floor(0.50),
    rate("client.create", "null_rpc", client_meta::create).floor(0.40),
    rate("client.create.writeback", "null_rpc", client_meta::create_writeback).floor(1.50),
    rate("client.stat.uncached", "null_rpc", client_meta::stat_uncached).floor(0.80),
    rate("client.unlink", "null_rpc", client_meta::unlink).floor(0.40),
    rate("client.readdirplus", "null_rpc", client_meta::readdirplus).floor(20.0),
    bytes("fuse.write.seq.random", "raw_tcp.write", |b| fuse_seq::write_close(b, Random)),
    cpu("fuse.write.seq.random.mb_per_cpu_second", "fuse.write.seq.random"),
    bytes("fuse.write.seq.half", "lz4.compress.one_core", |b| fuse_seq::write_close(b, Half)),
    cpu("fuse.write.seq.half.mb_per_cpu_second", "fuse.write.seq.half"),
    bytes("fuse.write.seq.4k", "fuse.write.seq.random", fuse_seq::write_small).floor(0.50),
    bytes("fuse.write.seq.random.fsync", "local.write.seq.random.fsync", |b| fuse_seq::write_fsync(b, Random))
        .floor(0.80),
    cpu("fuse.write.seq.random.fsync.mb_per_cpu_second", "fuse.write.seq.random.fsync"),
    bytes("fuse.write.seq.half.fsync", "local.write.seq.half.fsync", |b| fuse_seq::write_fsync(b, Half)).floor(1.00),
    cpu("fuse.write.seq.half.fsync.mb_per_cpu_second", "fuse.write.seq.half.fsync"),
    bytes("fuse.read.seq.random", "fuse_null.read", |b| fuse_seq::read(b, Random)).floor(0.50),
    cpu("fuse.read.seq.random.mb_per_cpu_second", "fuse.read.seq.random"),
    bytes("fuse.read.seq.half", "lz4.decompress.one_core", |b| fuse_seq::read(b, Half)),
    cpu("fuse.read.seq.half.mb_per_cpu_second", "fuse.read.seq.half"),
    bytes("fuse.read.seq.random.cold", "disk.read.direct", |b| fuse_seq::read_cold(b, Random)).floor(0.80),
    cpu("fuse.read.seq.random.cold.mb_per_cpu_second", "fuse.read.seq.random.cold"),
    bytes("fuse.read.seq.half.cold", "disk.read.direct", |b| fuse_seq::read_cold(b, Half)).floor(1.20),
    cpu("fuse.read.seq.half.cold.mb_per_cpu_second", "fuse.read.seq.half.cold"),
    rate("fuse.read.4k.rand", "raw_tcp.roundtrips", fuse_rand::read).floor(0.30),
    rate("fuse.write.4k.rand", "raw_tcp.roundtrips", fuse_rand::write).floor(0.25),
    rate("fuse.write.4k.rand.commit", "raw_tcp.roundtrips", fuse_rand::write_commit),
    rate("fuse.write.4k.fsync", "disk.fsync", fuse_rand::write_fsync).floor(0.30),
    rate("fuse.mdtest.create.1p", "null_rpc", |b| fuse_files::create(b, 1)).floor(0.40),
    rate("fuse.mdtest.create.4p", "null_rpc", |b| fuse_files::create(b, 4)).floor(0.75),
    rate("fuse.mdtest.create.4p.shared", "null_rpc", |b| fuse_files::create_shared(b, 4)).floor(0.50),
    rate("fuse.mdtest.mkdir.4p", "null_rpc", |b| fuse_files::mkdir(b, 4)).floor(0.75),
    rate("fuse.mdtest.stat.1p.cold", "null_rpc", |b| fuse_files::stat_cold(b, 1)),
    rate("fuse.mdtest.stat.4p.cold", "null_rpc", |b| fuse_files::stat_cold(b, 4)).floor(1.00),
    rate("fuse.mdtest.stat.4p.warm", "null_rpc", |b| fuse_files::stat_warm(b, 4)).floor(10.0),
    rate("fuse.mdtest.remove.1p", "null_rpc", |b| fuse_files::remove(b, 1)),
    rate("fuse.mdtest.remove.4p", "null_rpc", |b| fuse_files::remove(b, 4)).floor(0.75),
    rate("fuse.small.create", "null_rpc", fuse_small::create).floor(0.30),
    rate("fuse.small.read.cold", "null_rpc", fuse_small::read_cold).floor(0.40),
    rate("fuse.untar", "null_rpc", fuse_tree::untar).floor(0.25),
    rate("fuse.walk.cold", "null_rpc", fuse_tree::walk_cold).floor(1.00),
    limit("s3.list", Unit::Rate, s3::list),
    limit("s3.get.chunk", Unit::Rate, |b| s3::get_chunk(b, Near)),
    limit("s3.get.parallel", Unit::Throughput, |b| s3::get_parallel(b, Near)),
    limit("s3.far.get.chunk", Unit::Rate, |b| s3::get_chunk(b, Far)),
    limit("s3.far.get.parallel", Unit::Throughput, |b| s3::get_parallel(b, Far)),
    limit("s3.put.multipart", Unit::Throughput, |b| s3::put_multipart(b, Near)),
    limit("s3.put.small", Unit::Rate, s3::put_small),
    limit("s3.far.put.multipart", Unit::Throughput, |b| s3::put_multipart(b, Far)),
    rate("repo.import", "s3.list", repo::import).enough(20_000.0),
    rate("repo.first_byte", "s3.get.chunk", |b| repo::first_byte(b, Near)).floor(0.67),
    bytes("repo.read.cold", "s3.get.parallel", |b| repo::read_cold(b, Near)).floor(0.80),
    rate("repo.far.first_byte", "s3.far.get.chunk", |b| repo::first_byte(b, Far)).floor(0.67),
    bytes("repo.far.read.cold", "s3.far.get.parallel", |b| repo::read_cold(b, Far)).floor(0.80),
    bytes("repo.export.large", "s3.put.multipart", |b| repo::export_large(b, Near)).floor(0.80),
    bytes("repo.far.export.large", "s3.far.put.multipart", |b| repo::export_large(b, Far)).floor(0.80),
    rate("repo.export.small", "s3.put.small", repo::export_small).floor(0.80).enough(2_000.0),
    alone("repo.visible.import", repo_visible::import).enough(0.1),
    alone("repo.visible.export", repo_visible::export).enough(0.1),
];

/// One case by its name.
pub fn get(name: &str) -> Option<&'static Case> {
    CATALOGUE.iter().find(|case| case.name == name)
}

/// The cases whose names start with `prefix` (all without one) and, before them, the limits they need.
pub fn select(prefix: Option<&str>) -> anyhow::Result<Vec<&'static Case>> {
    let wanted = |case: &Case| prefix.is_none_or(|prefix| case.name.starts_with(prefix));
    let mut names: Vec<&str> = CATALOGUE.iter().filter(|case| wanted(case)).map(|case| case.name).collect();
    if names.is_empty() {
        bail!("no case starts with {:?}; --list names them", prefix.unwrap_or_default());
    }
    let mut i = 0;
    while let Some(case) = names.get(i).and_then(|name| get(name)) {
        let missing: Vec<&str> = case.needs().filter(|need| !names.contains(need)).collect();
        names.extend(missing);
        i += 1;
    }
    Ok(CATALOGUE.iter().filter(|case| names.contains(&case.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_limit_stands_before_its_cases_and_has_their_unit() {
        for (i, case) in CATALOGUE.iter().enumerate() {
            assert!(CATALOGUE[..i].iter().all(|other| other.name != case.name), "{} twice", case.name);
            if let Measure::CpuOf(base) = case.measure {
                assert!(CATALOGUE[..i].iter().any(|other| other.name == base), "{base} is not before {}", case.name);
            }
            let Some(limit) = case.limit else {
                assert_eq!(case.floor, None, "{} has a floor and no limit", case.name);
                continue;
            };
            let limit =
                CATALOGUE[..i].iter().find(|c| c.name == limit).unwrap_or_else(|| panic!("{limit} is not before"));
            assert_eq!(limit.unit, case.unit, "{}", case.name);
        }
    }

    #[test]
    fn a_selection_brings_the_limits_it_needs_and_theirs() {
        let names = |prefix| select(Some(prefix)).expect("some").iter().map(|c| c.name).collect::<Vec<_>>();
        assert_eq!(names("fuse.write.seq.4k"), ["raw_tcp.write", "fuse.write.seq.random", "fuse.write.seq.4k"]);
        assert_eq!(names("disk.fsync"), ["disk.fsync"]);
        let read = "fuse.read.seq.random.cold";
        let worked = "fuse.read.seq.random.cold.mb_per_cpu_second";
        assert_eq!(names(worked), ["disk.read.direct", read, worked]);
        assert_eq!(select(None).expect("all").len(), CATALOGUE.len());
        assert!(select(Some("nothing")).is_err());
    }
}
