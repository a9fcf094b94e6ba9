//! How repositories are shown: lines for people, fields for scripts. Pure.

use sateen_types::FsName;
use sateen_types::Timestamp;
use sateen_types::repository::{Conflict, Failing, ImportState, ImportStatus, Repository, RepositoryEvents, Skipped};
use serde_json::{Value, json};

use crate::table::{Align, bytes, duration, render, time};

/// Skipped objects that are shown to people.
const SKIPPED_SHOWN: usize = 20;

/// One line about an import.
pub fn summary(import: &ImportStatus) -> String {
    let ImportStatus { objects, created, changed, skipped, bytes: total, .. } = import;
    format!("{objects} objects: {created} created, {changed} changed, {skipped} skipped; {} to load", bytes(*total))
}

fn events(events: RepositoryEvents) -> Vec<&'static str> {
    let RepositoryEvents { created, changed, deleted } = events;
    [(created, "NEW"), (changed, "CHANGED"), (deleted, "DELETED")].into_iter().filter(|e| e.0).map(|e| e.1).collect()
}

/// For scripts.
pub fn to_json(fs: &FsName, repo: &Repository) -> Value {
    let (settings, import) = (&repo.settings, &repo.import);
    json!({
        "id": repo.id.to_string(),
        "file_system": fs.as_str(),
        "path": settings.path.as_str(),
        "url": settings.url.to_string(),
        "endpoint": settings.endpoint,
        "region": settings.region,
        "profile": settings.profile,
        "auto_import": events(settings.auto_import),
        "auto_export": events(settings.auto_export),
        "chunk_mib": settings.chunk_mib,
        "state": repo.state.to_string(),
        "message": repo.message,
        "created": time(repo.created),
        "root": repo.root.to_string(),
        "import": {
            "state": import.state.to_string(),
            "message": import.message,
            "objects": import.objects,
            "created": import.created,
            "changed": import.changed,
            "skipped": import.skipped,
            "bytes": import.bytes,
            "started": import.started.map(time),
            "ended": import.ended.map(time),
            "first_skipped": import.first_skipped.iter().map(skipped_json).collect::<Vec<_>>(),
        },
        "conflict": settings.conflict.to_string(),
        "conflicts": repo.conflicts,
        "sync_interval_s": settings.sync_interval_s,
        "synced": repo.synced.map(time),
        "event_source": settings.event_source.to_string(),
        "watched": repo.watched.map(time),
        "watch_message": repo.watch_message,
        "export": export_json(repo, None),
    })
}

fn skipped_json(skipped: &Skipped) -> Value {
    json!({ "key": String::from_utf8_lossy(&skipped.key), "code": skipped.code, "message": skipped.message })
}

fn export_json(repo: &Repository, now: Option<Timestamp>) -> Value {
    let export = &repo.export;
    json!({
        "queued": export.queued,
        "oldest": export.oldest.map(time),
        "oldest_s": now.zip(export.oldest).map(|(now, since)| age(since, now)),
        "stored": export.stored,
        "bytes": export.bytes,
        "deleted": export.deleted,
        "failed": export.failed,
        "skipped": export.skipped,
        "first_skipped": export.first_skipped.iter().map(skipped_json).collect::<Vec<_>>(),
        "message": export.message,
        "failing": export.failing.iter().map(failing_json).collect::<Vec<_>>(),
    })
}

fn failing_json(failing: &Failing) -> Value {
    json!({ "key": String::from_utf8_lossy(&failing.key), "attempts": failing.attempts, "message": failing.message })
}

/// Seconds since then.
fn age(since: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.seconds - since.seconds).unwrap_or(0)
}

/// What is left to export, for scripts.
pub fn status_json(fs: &FsName, repo: &Repository, now: Timestamp) -> Value {
    json!({
        "id": repo.id.to_string(),
        "file_system": fs.as_str(),
        "path": repo.settings.path.as_str(),
        "state": repo.state.to_string(),
        "conflicts": repo.conflicts,
        "export": export_json(repo, Some(now)),
    })
}

/// What is left to export, for people.
pub fn status_table(repos: &[Repository], now: Timestamp) -> String {
    let row = |repo: &Repository| {
        let export = &repo.export;
        vec![
            repo.id.to_string(),
            repo.settings.path.to_string(),
            repo.state.to_string(),
            export.queued.to_string(),
            export.oldest.map_or_else(|| "-".to_owned(), |since| duration(age(since, now))),
            export.stored.to_string(),
            export.deleted.to_string(),
            export.failed.to_string(),
            export.skipped.to_string(),
            repo.conflicts.to_string(),
        ]
    };
    let head = [
        ("REPOSITORY", Align::Left),
        ("DIRECTORY", Align::Left),
        ("STATE", Align::Left),
        ("QUEUED", Align::Right),
        ("OLDEST", Align::Right),
        ("STORED", Align::Right),
        ("DELETED", Align::Right),
        ("FAILED", Align::Right),
        ("SKIPPED", Align::Right),
        ("CONFLICTS", Align::Right),
    ];
    render(&head, &repos.iter().map(row).collect::<Vec<_>>())
}

fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).escape_debug().to_string()
}

/// A conflict, for scripts.
pub fn conflict_json(conflict: &Conflict) -> Value {
    json!({
        "key": String::from_utf8_lossy(&conflict.key),
        "fid": conflict.fid.map(|fid| fid.to_string()),
        "since": time(conflict.since),
        "known_etag": conflict.known_etag,
        "object": conflict.object.as_ref().map(|object| {
            json!({ "size": object.size, "etag": object.etag, "modified": time(object.modified) })
        }),
    })
}

/// Conflicts, for people.
pub fn conflict_table(conflicts: &[Conflict]) -> String {
    let row = |conflict: &Conflict| {
        let object = match &conflict.object {
            Some(object) => format!("{} of {}", bytes(object.size), time(object.modified)),
            None => "gone".to_owned(),
        };
        let here = if conflict.fid.is_some() { "changed" } else { "gone" };
        vec![shown(&conflict.key), here.to_owned(), object, time(conflict.since)]
    };
    let head = [("KEY", Align::Left), ("HERE", Align::Left), ("OBJECT", Align::Left), ("SINCE", Align::Left)];
    render(&head, &conflicts.iter().map(row).collect::<Vec<_>>())
}

/// A table for people.
pub fn table(all: &[(FsName, Repository)]) -> String {
    let row = |(fs, repo): &(FsName, Repository)| {
        vec![
            repo.id.to_string(),
            fs.to_string(),
            repo.settings.path.to_string(),
            repo.settings.url.to_string(),
            repo.state.to_string(),
            repo.import.state.to_string(),
            repo.import.objects.to_string(),
        ]
    };
    let head = [
        ("REPOSITORY", Align::Left),
        ("FILE SYSTEM", Align::Left),
        ("DIRECTORY", Align::Left),
        ("URL", Align::Left),
        ("STATE", Align::Left),
        ("IMPORT", Align::Left),
        ("OBJECTS", Align::Right),
    ];
    render(&head, &all.iter().map(row).collect::<Vec<_>>())
}

/// Everything about one, for people.
pub fn details(fs: &FsName, repo: &Repository) -> String {
    let (settings, import) = (&repo.settings, &repo.import);
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    let with = |state: &str, why: &str| if why.is_empty() { state.to_owned() } else { format!("{state}: {why}") };
    let listed = |on: RepositoryEvents| or(&events(on).join(","), "off");
    let mut lines = vec![
        ("repository", repo.id.to_string()),
        ("file system", fs.to_string()),
        ("directory", settings.path.to_string()),
        ("url", settings.url.to_string()),
        ("endpoint", or(&settings.endpoint, "the provider's own")),
        ("region", settings.region.clone()),
        ("credentials", settings.profile.clone()),
        ("auto import", listed(settings.auto_import)),
        ("auto export", listed(settings.auto_export)),
        ("conflicts", format!("{}, policy {}", repo.conflicts, settings.conflict)),
        ("stripes", format!("{} MiB", settings.chunk_mib)),
        ("created", time(repo.created)),
        ("state", with(&repo.state.to_string(), &repo.message)),
        ("import", with(&import.state.to_string(), &import.message)),
    ];
    if import.state != ImportState::None {
        lines.push(("imported", summary(import)));
        lines.extend(import.started.map(|at| ("started", time(at))));
        lines.extend(import.ended.map(|at| ("ended", time(at))));
    }
    let export = &repo.export;
    if settings.auto_export != RepositoryEvents::default() || export.queued + export.stored + export.deleted > 0 {
        let (stored, deleted) = (export.stored, export.deleted);
        lines.push((
            "export",
            with(&format!("{} queued, {stored} stored, {deleted} deleted", export.queued), &export.message),
        ));
    }
    if settings.auto_import != RepositoryEvents::default() {
        let synced = repo.synced.map_or_else(|| "never".to_owned(), time);
        lines.push(("compared", format!("{synced}, every {}", duration(u64::from(settings.sync_interval_s)))));
        let source = or(&settings.event_source.to_string(), "nobody");
        let heard = repo.watched.map(|at| format!("{source}, heard {}", time(at))).unwrap_or(source);
        lines.push(("watched by", with(&heard, &repo.watch_message)));
    }
    let mut text: String = lines.iter().map(|(name, value)| format!("{:<13} {value}\n", format!("{name}:"))).collect();
    for skipped in import.first_skipped.iter().chain(&export.first_skipped).take(SKIPPED_SHOWN) {
        let key = shown(&skipped.key);
        text.push_str(&format!("skipped:      {key}: {} ({})\n", skipped.message.escape_debug(), skipped.code));
    }
    for failing in &export.failing {
        let (key, why) = (shown(&failing.key), failing.message.escape_debug());
        text.push_str(&format!("failing:      {key}: {why} (tried {} times)\n", failing.attempts));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::repository::{ExportStatus, Failing, Found, RepositorySettings, RepositoryState};
    use sateen_types::{Fid, RepositoryId};

    fn repo() -> Repository {
        let url = "s3://bucket/prefix/".parse().expect("a URL");
        let skipped = Skipped { key: b"a/../b\n".to_vec(), code: "CODE".to_owned(), message: "no path".to_owned() };
        Repository {
            id: RepositoryId(0xabc),
            settings: RepositorySettings::new("/dataset".parse().expect("a path"), url),
            state: RepositoryState::Available,
            message: String::new(),
            created: Timestamp { seconds: 0, nanos: 0 },
            root: Fid::ROOT,
            import: ImportStatus {
                state: ImportState::Done,
                objects: 3,
                created: 2,
                skipped: 1,
                bytes: 1 << 20,
                first_skipped: vec![skipped],
                ..ImportStatus::default()
            },
            export: ExportStatus {
                queued: 2,
                oldest: Some(Timestamp { seconds: 10, nanos: 0 }),
                stored: 5,
                failing: vec![Failing { key: b"a/f".to_vec(), attempts: 3, message: "503".to_owned() }],
                ..ExportStatus::default()
            },
            synced: None,
            conflicts: 1,
            watched: None,
            watch_message: String::new(),
        }
    }

    #[test]
    fn people_see_lines_and_scripts_see_fields() {
        let fs: FsName = "scratch".parse().expect("a name");
        let text = table(&[(fs.clone(), repo())]);
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(|head| head.starts_with("REPOSITORY") && head.ends_with("OBJECTS")));
        let row = "dra-00000000000000abc  scratch      /dataset   s3://bucket/prefix/  AVAILABLE  DONE          3";
        assert_eq!(lines.next(), Some(row));
        let shown = details(&fs, &repo());
        assert!(shown.contains("state:        AVAILABLE\n"), "{shown}");
        assert!(
            shown.contains("imported:     3 objects: 2 created, 0 changed, 1 skipped; 1.0 MiB to load\n"),
            "{shown}"
        );
        assert!(shown.contains("skipped:      a/../b\\n: no path (CODE)\n"), "{shown}");
        assert!(shown.contains("failing:      a/f: 503 (tried 3 times)\n"), "{shown}");
        let value = to_json(&fs, &repo());
        assert_eq!(value["export"]["failing"][0]["attempts"], 3);
        assert_eq!(value["id"], "dra-00000000000000abc");
        assert_eq!(value["import"]["first_skipped"][0]["code"], "CODE");
    }

    #[test]
    fn what_is_left_to_export_is_told_with_its_age() {
        let (fs, now): (FsName, _) = ("scratch".parse().expect("a name"), Timestamp { seconds: 75, nanos: 0 });
        let value = status_json(&fs, &repo(), now);
        assert_eq!((&value["export"]["queued"], &value["export"]["oldest_s"]), (&json!(2), &json!(65)));
        let text = status_table(&[repo()], now);
        let row = text.lines().nth(1).expect("a row");
        assert_eq!(row.split_whitespace().last(), Some("1"), "{text}");
        assert!(details(&fs, &repo()).contains("export:       2 queued, 5 stored, 0 deleted\n"));
    }

    #[test]
    fn conflicts_say_what_became_of_both_sides() {
        let at = Timestamp { seconds: 0, nanos: 0 };
        let object = Found { size: 2048, etag: "e".to_owned(), modified: at };
        let changed =
            Conflict { key: b"a\n".to_vec(), fid: Some(Fid::ROOT), since: at, object: None, known_etag: String::new() };
        let gone = Conflict { key: b"b".to_vec(), fid: None, object: Some(object), ..changed.clone() };
        let text = conflict_table(&[changed, gone.clone()]);
        let rows: Vec<_> = text.lines().skip(1).collect();
        assert!(rows[0].starts_with("a\\n  changed  gone"), "{text}");
        assert!(rows[1].starts_with("b    gone     2.0 KiB of 1970-01-01"), "{text}");
        assert_eq!(conflict_json(&gone)["object"]["size"], 2048);
    }
}
