//! Copies a local file into a file system, makes it durable, and reads it back to compare.
//!
//! ```text
//! copy_in localhost:9880:/scratch ./local-file /remote-name
//! ```

use std::io::Read;

use sateen_client::blocking::Client;

/// Bytes moved at a time.
const PIECE_BYTES: usize = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, from, to] = arguments.as_slice() else {
        return Err("usage: copy_in HOST[:PORT]:/FS LOCAL_FILE REMOTE_PATH".into());
    };
    let client = Client::connect(source, Default::default())?;

    let start = std::time::Instant::now();
    let mut local = std::fs::File::open(from)?;
    let mut remote = client.create(to)?;
    let copied = std::io::copy(&mut local, &mut std::io::BufWriter::with_capacity(PIECE_BYTES, &mut remote))?;
    remote.sync_all()?;
    remote.close()?;
    println!("{copied} bytes copied in and durable after {:.2?}", start.elapsed());

    let start = std::time::Instant::now();
    let mut local = std::io::BufReader::with_capacity(PIECE_BYTES, std::fs::File::open(from)?);
    let mut remote = client.open(to)?;
    let (mut want, mut have) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut compared = 0u64;
    loop {
        let len = remote.read(&mut have)?;
        local.read_exact(&mut want[..len])?;
        if want[..len] != have[..len] {
            return Err(format!("the copy differs between bytes {compared} and {}", compared + len as u64).into());
        }
        compared += len as u64;
        if len == 0 {
            break;
        }
    }
    if compared != copied {
        return Err(format!("{compared} bytes came back").into());
    }
    println!("{compared} bytes read back and equal after {:.2?}", start.elapsed());
    remote.close()?;
    client.close()?;
    Ok(())
}
