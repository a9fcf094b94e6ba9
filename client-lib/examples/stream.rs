//! Streams a file through the client library and says how fast that was.
//!
//! ```text
//! cargo run --release --example stream -- write HOST:PORT:/FS NAME MEBIBYTES
//! cargo run --release --example stream -- read HOST:PORT:/FS NAME [TIMES]
//! cargo run --release --example stream -- random HOST:PORT:/FS NAME THOUSANDS     (4 KiB reads, 16 under way)
//! ```
//!
//! Data is pseudo-random, so it does not compress. Reading uses a session of its own each time: nothing is cached.

use std::time::Instant;

use rand::{RngCore, SeedableRng};
use sateen_client::{Access, Client, Credential, MountSource, Name, NewFile, Options};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of one read or write.
const BLOCK: usize = 1 << 20;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [verb, source, name, rest @ ..] = &args[..] else {
        return Err("usage: stream write|read|random HOST:PORT:/FS NAME [NUMBER]".into());
    };
    let (source, name) = (source.parse::<MountSource>()?, Name::parse(name.as_bytes())?);
    let number: u64 = rest.first().map_or(Ok(1), |n| n.parse())?;
    match verb.as_str() {
        "write" => write(&source, &name, number).await,
        "read" => {
            for _ in 0..number {
                read(&source, &name).await?;
            }
            Ok(())
        }
        "random" => random(&source, &name, number * 1000).await,
        other => Err(format!("{other:?} is not write, read or random").into()),
    }
}

async fn write(source: &MountSource, name: &Name, mebibytes: u64) -> Result<(), Error> {
    let client = Client::connect(source, Options::default()).await?;
    let mut block = vec![0; 32 * BLOCK];
    rand::rngs::StdRng::seed_from_u64(7).fill_bytes(&mut block);
    let new = NewFile {
        parent: client.root(),
        name: name.clone(),
        mode: 0o644.into(),
        exclusive: false,
        access: Access::WRITE,
        layout: None,
    };
    let file = client.create(&Credential::ROOT, new).await?.file;
    let start = Instant::now();
    for i in 0..mebibytes {
        let at = (i % 32) as usize * BLOCK;
        file.write_at(i * BLOCK as u64, &block[at..at + BLOCK]).await?;
    }
    file.flush().await?;
    report("stored", mebibytes * BLOCK as u64, start);
    file.fsync().await?;
    report("durable", mebibytes * BLOCK as u64, start);
    file.close().await?;
    Ok(client.close().await?)
}

async fn read(source: &MountSource, name: &Name) -> Result<(), Error> {
    let client = Client::connect(source, Options::default()).await?;
    let attr = client.lookup(&Credential::ROOT, client.root(), name).await?;
    let file = client.open(&Credential::ROOT, attr.fid, Access::READ).await?;
    let start = Instant::now();
    let mut at = 0;
    while at < attr.size {
        at += file.read_pieces(at, BLOCK).await?.len() as u64;
    }
    report("read", at, start);
    file.close().await?;
    Ok(client.close().await?)
}

async fn random(source: &MountSource, name: &Name, reads: u64) -> Result<(), Error> {
    const IN_FLIGHT: u64 = 16;
    let client = Client::connect(source, Options { cache_bytes_max: 0, ..Options::default() }).await?;
    let attr = client.lookup(&Credential::ROOT, client.root(), name).await?;
    let file = client.open(&Credential::ROOT, attr.fid, Access::READ).await?;
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..IN_FLIGHT {
        let (file, blocks) = (file.clone(), attr.size / 4096);
        tasks.spawn(async move {
            let mut random = rand::rngs::StdRng::seed_from_u64(task);
            for _ in 0..reads / IN_FLIGHT {
                file.read_at(random.next_u64() % blocks * 4096, 4096).await?;
            }
            Ok::<_, sateen_client::FsError>(())
        });
    }
    for done in tasks.join_all().await {
        done?;
    }
    println!("{reads} reads: {:.0} per second", reads as f64 / start.elapsed().as_secs_f64());
    file.close().await?;
    Ok(client.close().await?)
}

fn report(what: &str, bytes: u64, start: Instant) {
    println!("{what:8} {:6.2} GB/s", bytes as f64 / start.elapsed().as_secs_f64() / 1e9);
}

/// What a program that moves much data would choose: the system's allocator returns memory only to fault it in again.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
