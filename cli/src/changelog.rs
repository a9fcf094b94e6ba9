//! `sateen changelog`: who follows what happens in a file system.

use sateen_types::changelog::{ChangeUser, Changelog};
use sateen_types::{FsCode, FsError, FsResult, Timestamp};
use serde_json::json;

use crate::args::{ChangelogVerb, Mds};
use crate::mds::{admin, block_on};
use crate::table::{Align, duration, render, time};

/// Runs the verb.
pub fn run(command: ChangelogVerb, mds: &Mds) -> FsResult<u8> {
    let host = mds.address();
    block_on(async {
        let admin = admin(&host).await?;
        match command {
            ChangelogVerb::Register { fs, name, mask } => {
                let mask = mask.unwrap_or(sateen_types::changelog::ChangeMask::USUAL);
                let user = admin.register_changelog(&fs, &name.unwrap_or_default(), mask).await?;
                say!("{fs}-MDT0000: Registered changelog userid '{}'", user.label());
            }
            ChangelogVerb::Deregister { fs, user } => {
                let id = ChangeUser::parse_label(&user).ok_or_else(|| {
                    FsError::new(FsCode::NotFound, format!("no changelog user: {user}"))
                        .with_hint(format!("see those there are with: sateen changelog users {fs}"))
                })?;
                admin.deregister_changelog(&fs, id).await?;
                say!("{fs}-MDT0000: Deregistered changelog user #{id}");
            }
            ChangelogVerb::Users { fs, json } => {
                let log = admin.changelog(&fs).await?;
                if json {
                    say!("{}", to_json(&log));
                } else {
                    say_text!("{}", table(&log, Timestamp::now()));
                }
            }
        }
        Ok(0)
    })
}

fn to_json(log: &Changelog) -> serde_json::Value {
    let user = |u: &ChangeUser| json!({ "id": u.label(), "cleared": u.cleared, "seen": time(u.seen), "mask": u.mask.to_string() });
    json!({ "index": log.index, "first": log.first, "users": log.users.iter().map(user).collect::<Vec<_>>() })
}

fn table(log: &Changelog, now: Timestamp) -> String {
    let row = |u: &ChangeUser| {
        let idle = u64::try_from(now.seconds - u.seen.seconds).unwrap_or(0);
        vec![u.label(), u.cleared.to_string(), (log.index - u.cleared).to_string(), duration(idle), u.mask.to_string()]
    };
    let head = [
        ("ID", Align::Left),
        ("CLEARED", Align::Right),
        ("BEHIND", Align::Right),
        ("IDLE", Align::Right),
        ("MASK", Align::Left),
    ];
    format!("current_index: {}\n{}", log.index, render(&head, &log.users.iter().map(row).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::changelog::ChangeMask;

    #[test]
    fn users_are_told_with_how_far_they_are_behind() {
        let seen = Timestamp { seconds: 10, nanos: 0 };
        let mask: ChangeMask = "CREAT,HSM".parse().expect("a mask");
        let user = ChangeUser { id: 1, name: "rbh".to_owned(), cleared: 40, seen, mask };
        let log = Changelog { index: 100, first: 41, users: vec![user] };
        let text = table(&log, Timestamp { seconds: 22, nanos: 0 });
        assert!(text.starts_with("current_index: 100\nID "), "{text}");
        let row: Vec<_> = text.lines().nth(2).expect("a row").split_whitespace().collect();
        assert_eq!((row[0], row[1], row[2], row[4]), ("cl1-rbh", "40", "60", "CREAT,HSM"), "{text}");
        assert_eq!(to_json(&log)["users"][0]["id"], "cl1-rbh");
    }
}
