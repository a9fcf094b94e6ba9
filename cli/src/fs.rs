//! `sateen fs`: file systems of a cluster.

use sateen_client::admin::{FileSystem, FileSystemState, NewFileSystem};
use sateen_types::{Compression, FsCode, FsError, FsResult, LayoutTemplate};
use serde_json::{Value, json};

use crate::args::{CompressionArg, Fs, Mds};
use crate::lfs::setstripe_args::{self, Refused};
use crate::mds::{admin, block_on};
use crate::table::{Align, render, time};

/// Runs the verb.
pub fn run(command: Fs, mds: &Mds) -> FsResult<u8> {
    let host = mds.address();
    block_on(async {
        match command {
            Fs::Create { name, compression, stripe, owner, mode, json } => {
                let (root_uid, root_gid) = parse_owner(&owner)?;
                let new = NewFileSystem {
                    compression: Some(match compression {
                        CompressionArg::Lz4 => Compression::Lz4,
                        CompressionArg::None => Compression::None,
                    }),
                    default_layout: stripe.as_deref().map(parse_stripe).transpose()?,
                    root_uid,
                    root_gid,
                    root_mode: parse_mode(&mode)?,
                    ..NewFileSystem::new(name)
                };
                let made = admin(&host).await?.create_file_system(new).await?;
                if json {
                    say!("{}", to_json(&made));
                } else {
                    say!("file system {} made; mount it with: sateen mount {host}:/{} PATH", made.name, made.name);
                }
            }
            Fs::List { json } => {
                let all = admin(&host).await?.list_file_systems().await?;
                if json {
                    say!("{}", Value::Array(all.iter().map(to_json).collect()));
                } else {
                    say_text!("{}", table(&all));
                }
            }
            Fs::Show { name, json } => {
                let fs = admin(&host).await?.get_file_system(&name).await?;
                if json { say!("{}", to_json(&fs)) } else { say_text!("{}", details(&fs, &host)) }
            }
            Fs::Delete { name, yes, force } => {
                if !yes {
                    return Err(FsError::new(
                        FsCode::Invalid,
                        format!("not deleting file system {name} without --yes"),
                    )
                    .with_hint(format!("all its data goes: sateen fs delete {name} --yes")));
                }
                admin(&host).await?.delete_file_system(&name, force).await?;
                say!("file system {name} deleted");
            }
        }
        Ok(0)
    })
}

fn invalid(message: String, hint: &str) -> FsError {
    FsError::new(FsCode::Invalid, message).with_hint(hint)
}

fn parse_owner(text: &str) -> FsResult<(u32, u32)> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => Ok((uid, gid)),
        _ => Err(invalid(format!("owner {text:?} is not UID[:GID]"), "give numbers, for example 1000:1000")),
    }
}

fn parse_mode(text: &str) -> FsResult<u32> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777);
    mode.ok_or_else(|| invalid(format!("mode {text:?} is not octal permission bits"), "write for example 755 or 1777"))
}

/// Options of `lfs setstripe` without a file.
fn parse_stripe(text: &str) -> FsResult<LayoutTemplate> {
    const HINT: &str = "write options of lfs setstripe, for example '-c 4 -S 1M' or '-E 100M -c 1 -E -1 -c -1'";
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).chain(["-".to_owned()]).collect();
    match setstripe_args::parse(&words) {
        Ok(parsed) if parsed.paths.len() == 1 => {
            parsed.layout.ok_or_else(|| invalid(format!("--stripe {text:?} gives no layout"), HINT))
        }
        Ok(_) => Err(invalid(format!("--stripe {text:?} holds a word that is no option"), HINT)),
        Err(Refused::Usage(what)) => Err(invalid(format!("--stripe {text:?}: {what}"), HINT)),
        Err(Refused::NotSupported(what)) => {
            Err(FsError::new(FsCode::NotSupported, format!("--stripe {text:?}: {what} is not supported"))
                .with_hint(HINT))
        }
    }
}

fn state(fs: &FileSystem) -> &'static str {
    match fs.state {
        FileSystemState::Available => "available",
        FileSystemState::Deleting => "deleting",
    }
}

fn compression(fs: &FileSystem) -> &'static str {
    match fs.compression {
        Compression::Lz4 => "lz4",
        Compression::None => "none",
    }
}

/// For scripts.
pub fn to_json(fs: &FileSystem) -> Value {
    json!({
        "id": fs.id.0,
        "name": fs.name.as_str(),
        "state": state(fs),
        "compression": compression(fs),
        "created": time(fs.created),
        "inodes": fs.inodes,
        "clients": fs.clients,
        "default_layout": fs.default_layout,
    })
}

/// For people.
pub fn table(all: &[FileSystem]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|fs| {
            vec![
                fs.name.to_string(),
                state(fs).to_owned(),
                compression(fs).to_owned(),
                fs.inodes.to_string(),
                fs.clients.to_string(),
                time(fs.created),
            ]
        })
        .collect();
    let head = [
        ("FILE SYSTEM", Align::Left),
        ("STATE", Align::Left),
        ("COMPRESSION", Align::Left),
        ("INODES", Align::Right),
        ("CLIENTS", Align::Right),
        ("CREATED", Align::Left),
    ];
    render(&head, &rows)
}

fn details(fs: &FileSystem, host: &str) -> String {
    let layout = crate::lfs::getstripe_text::directory("default layout:", &fs.default_layout, Default::default());
    format!(
        "name:         {}\nid:           {}\nstate:        {}\ncompression:  {}\ncreated:      {}\ninodes:       {}\n\
         clients:      {}\nmount with:   sateen mount {host}:/{} PATH\n{layout}",
        fs.name,
        fs.id,
        state(fs),
        compression(fs),
        time(fs.created),
        fs.inodes,
        fs.clients,
        fs.name,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_before_the_mds_is_asked() {
        assert_eq!(parse_owner("5").expect("uid"), (5, 5));
        assert_eq!(parse_owner("5:6").expect("both"), (5, 6));
        assert!(parse_owner("bob").is_err() && parse_owner("1:2:3").is_err());
        assert_eq!(parse_mode("1777").expect("octal"), 0o1777);
        assert!(parse_mode("888").is_err() && parse_mode("77777").is_err());
        assert_eq!(parse_stripe("-c 4 -S 1M").expect("layout").components[0].striping.stripe_count, 4);
        for bad in ["-c 4 x", "-d", "-q", "-N2", ""] {
            let parsed = parse_stripe(bad);
            assert!(parsed.is_err() || bad.is_empty(), "{bad:?}: {parsed:?}");
        }
    }
}
