//! Names through the client library: 16 tasks, each in a directory of its own.

use std::time::Instant;

use anyhow::ensure;
use sateen_client::{Access, Client, Credential, Fid, Name, NewFile, Options};
use tokio::task::JoinSet;

use crate::bench::Bench;
use crate::limits::rpc::CONCURRENCY;
use crate::peer::file_name;
use crate::rate::per_second;

/// Entries of one request.
const PAGE: u32 = 1024;

/// What each task does to each of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// Make it and close it.
    Create,
    /// Ask its attributes by name.
    Stat,
    /// Remove it.
    Unlink,
}

/// Files made (and closed) per second, each durable before its answer.
pub fn create(bench: &Bench) -> anyhow::Result<f64> {
    with_files(bench, |_, _| Ok(()), Op::Create)
}

/// Files made (and closed) per second by one task in a directory that its client has made and has to itself, until the MDS has
/// them all on disk.
pub fn create_writeback(bench: &Bench) -> anyhow::Result<f64> {
    let (count, label) = (bench.sizes.files, bench.new_name("client-writeback"));
    let name = Name::parse(label.as_bytes())?;
    bench.settle()?;
    let write_back = |options: &mut Options| options.write_back_names = true;
    let (dir, rate) = bench.with_client_of(write_back, async |client, parent| {
        let dir = client.mkdir(&Credential::ROOT, parent, &name, 0o755).await?.fid;
        let start = Instant::now();
        one(client.clone(), dir, count, Op::Create).await?;
        client.sync().await?;
        Ok((dir, per_second(u64::from(count), start.elapsed())))
    })?;
    on_all(bench, &[dir], count, Op::Unlink)?;
    let labels = [label];
    bench.with_client(|client, parent| remove_dirs(client, parent, &labels))?;
    Ok(rate)
}

/// Attributes asked by name per second, none of them known to the client.
pub fn stat_uncached(bench: &Bench) -> anyhow::Result<f64> {
    with_files(bench, |dirs, count| on_all(bench, dirs, count, Op::Create).map(drop), Op::Stat)
}

/// Empty files removed per second.
pub fn unlink(bench: &Bench) -> anyhow::Result<f64> {
    with_files(bench, |dirs, count| on_all(bench, dirs, count, Op::Create).map(drop), Op::Unlink)
}

/// Entries listed with their attributes per second, of one directory, with a new session.
pub fn readdirplus(bench: &Bench) -> anyhow::Result<f64> {
    let count = bench.sizes.files;
    let names = [bench.new_name("client-readdirplus")];
    let dirs = bench.with_client(|client, parent| make_dirs(client, parent, &names))?;
    on_all(bench, &dirs, count, Op::Create)?;
    bench.settle()?;
    let rate = bench.with_client(|client, _| list(client, dirs[0], count))?;
    on_all(bench, &dirs, count, Op::Unlink)?;
    bench.with_client(|client, parent| remove_dirs(client, parent, &names))?;
    Ok(rate)
}

async fn list(client: Client, dir: Fid, count: u32) -> anyhow::Result<f64> {
    let start = Instant::now();
    let (mut after, mut seen) = (0, 0);
    loop {
        let (entries, end, _) = client.readdir(&Credential::ROOT, dir, after, PAGE, true).await?;
        ensure!(entries.iter().all(|e| e.attr.as_ref().is_some_and(|a| a.fid == e.fid)), "an entry has no attributes");
        seen += entries.len() as u64;
        match entries.last() {
            Some(last) if !end => after = last.cookie,
            _ => break,
        }
    }
    ensure!(seen == u64::from(count), "{seen} of {count} entries were listed");
    Ok(per_second(seen, start.elapsed()))
}

/// Rate of `op` in new directories that `prepare` has filled; cleans up.
fn with_files(bench: &Bench, prepare: impl FnOnce(&[Fid], u32) -> anyhow::Result<()>, op: Op) -> anyhow::Result<f64> {
    let count = bench.sizes.files / CONCURRENCY as u32;
    let label = bench.new_name("client-meta");
    let names: Vec<String> = (0..CONCURRENCY).map(|task| format!("{label}-{task}")).collect();
    let dirs = bench.with_client(|client, parent| make_dirs(client, parent, &names))?;
    prepare(&dirs, count)?;
    bench.settle()?;
    let rate = on_all(bench, &dirs, count, op)?;
    if op != Op::Unlink {
        on_all(bench, &dirs, count, Op::Unlink)?;
    }
    bench.with_client(|client, parent| remove_dirs(client, parent, &names))?;
    Ok(rate)
}

/// `op` on `count` files in each directory, one task per directory, with a new session. Returns the rate.
fn on_all(bench: &Bench, dirs: &[Fid], count: u32, op: Op) -> anyhow::Result<f64> {
    bench.with_client(|client, _| async move {
        let mut tasks = JoinSet::new();
        let start = Instant::now();
        for dir in dirs {
            tasks.spawn(one(client.clone(), *dir, count, op));
        }
        tasks.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
        Ok(per_second(u64::from(count) * dirs.len() as u64, start.elapsed()))
    })
}

async fn one(client: Client, dir: Fid, count: u32, op: Op) -> anyhow::Result<()> {
    for i in 0..count {
        let name = Name::parse(file_name(i).as_bytes())?;
        match op {
            Op::Create => {
                let new = NewFile {
                    parent: dir,
                    name,
                    mode: 0o644.into(),
                    exclusive: true,
                    access: Access::WRITE,
                    layout: None,
                };
                client.create(&Credential::ROOT, new).await?.file.close().await?;
            }
            Op::Stat => {
                let attr = client.lookup(&Credential::ROOT, dir, &name).await?;
                ensure!(attr.nlink == 1, "{name} has {} links", attr.nlink);
            }
            Op::Unlink => client.unlink(&Credential::ROOT, dir, &name).await?,
        }
    }
    Ok(())
}

async fn make_dirs(client: Client, parent: Fid, names: &[String]) -> anyhow::Result<Vec<Fid>> {
    let mut dirs = Vec::with_capacity(names.len());
    for name in names {
        dirs.push(client.mkdir(&Credential::ROOT, parent, &Name::parse(name.as_bytes())?, 0o755).await?.fid);
    }
    Ok(dirs)
}

async fn remove_dirs(client: Client, parent: Fid, names: &[String]) -> anyhow::Result<()> {
    for name in names {
        client.rmdir(&Credential::ROOT, parent, &Name::parse(name.as_bytes())?).await?;
    }
    Ok(())
}
