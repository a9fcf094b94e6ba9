//! `sateen repo task` and `sateen repo auto-release`.

use std::time::Instant;

use sateen_client::admin::Admin;
use sateen_types::repository::{AutoRelease, Task, TaskSpec, TaskState};
use sateen_types::{FsCode, FsError, FsName, FsResult};
use serde_json::{Value, json};

use super::{LOOK_INTERVAL, PATIENCE};
use crate::args::{TaskCommand, WhichTask};
use crate::exit::DEGRADED;
use crate::table::{Align, bytes, render, time};

/// Runs the verb.
pub async fn run(admin: &Admin, command: TaskCommand) -> FsResult<u8> {
    match command {
        TaskCommand::Start { kind, fs, paths, report, days, wait, json } => {
            let spec = TaskSpec { kind: kind.into(), paths, report, days: days.unwrap_or(0) }.checked()?;
            let mut task = admin.start_task(&fs, &spec).await?;
            if !json {
                say!("{}: {}", task.id, task.spec.kind);
            }
            if wait {
                task = ended(admin, &fs, task).await?;
            }
            told(&fs, &task, wait, json);
            if !wait && !json {
                say!("see how far it is with: sateen repo task show {fs} {}", task.id);
            }
            Ok(code(&task, wait))
        }
        TaskCommand::List { fs, json } => {
            let tasks = admin.list_tasks(&fs).await?;
            if json {
                say!("{}", Value::Array(tasks.iter().map(|task| to_json(&fs, task)).collect()));
            } else {
                say_text!("{}", table(&tasks));
            }
            Ok(0)
        }
        TaskCommand::Show { which: WhichTask { fs, id }, wait, json } => {
            let mut task = admin.get_task(&fs, id).await?;
            if wait {
                task = ended(admin, &fs, task).await?;
            }
            told(&fs, &task, true, json);
            Ok(code(&task, wait))
        }
        TaskCommand::Cancel { which: WhichTask { fs, id }, wait, json } => {
            let mut task = admin.cancel_task(&fs, id).await?;
            if wait {
                task = ended(admin, &fs, task).await?;
            }
            if json {
                say!("{}", to_json(&fs, &task));
            } else {
                say!("{}: {}", task.id, task.state);
            }
            Ok(0)
        }
    }
}

/// Shows or sets when files are released by themselves.
pub async fn auto_release(
    admin: &Admin,
    fs: &FsName,
    high: Option<u32>,
    low: Option<u32>,
    off: bool,
    json: bool,
) -> FsResult<u8> {
    let marks = match (high, low, off) {
        (None, None, false) => admin.auto_release(fs).await?,
        (None, None, true) => admin.set_auto_release(fs, AutoRelease::OFF).await?,
        (Some(high), Some(low), false) => admin.set_auto_release(fs, set(high, low)?).await?,
        _ => {
            return Err(FsError::new(FsCode::Invalid, "--high and --low stand together, and --off alone")
                .with_hint("for example --high 90 --low 80"));
        }
    };
    if json {
        say!("{}", json!({ "file_system": fs.as_str(), "on": marks.is_on(), "high": marks.high, "low": marks.low }));
    } else if marks.is_on() {
        let AutoRelease { high, low } = marks;
        say!("{fs}: files are released when an OST is {high} % full, until it is {low} % full");
    } else {
        say!("{fs}: no file is released by itself");
    }
    Ok(0)
}

/// Marks that are on.
fn set(high: u32, low: u32) -> FsResult<AutoRelease> {
    if high == 0 {
        return Err(FsError::new(FsCode::Invalid, "--high 0 is no mark").with_hint("give --off to release nothing"));
    }
    AutoRelease { high, low }.checked()
}

/// Waits until a task has ended.
async fn ended(admin: &Admin, fs: &FsName, mut task: Task) -> FsResult<Task> {
    let (since, mut said) = (Instant::now(), false);
    while !task.state.is_over() {
        if !said && task.state == TaskState::Pending && since.elapsed() > PATIENCE {
            complain!("{} waits for other tasks; see: sateen repo task list {fs}", task.id);
            said = true;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        task = admin.get_task(fs, task.id).await?;
    }
    Ok(task)
}

/// Not all of what was waited for came.
fn code(task: &Task, waited: bool) -> u8 {
    if waited && task.state.is_over() && task.state != TaskState::Succeeded { DEGRADED } else { 0 }
}

fn told(fs: &FsName, task: &Task, all: bool, json: bool) {
    if json {
        say!("{}", to_json(fs, task));
    } else if all {
        say_text!("{}", details(fs, task));
    }
}

/// For scripts.
fn to_json(fs: &FsName, task: &Task) -> Value {
    let counts = task.counts;
    json!({
        "id": task.id.to_string(),
        "file_system": fs.as_str(),
        "type": task.spec.kind.to_string(),
        "lifecycle": task.state.to_string(),
        "message": task.message,
        "paths": task.spec.paths,
        "days": task.spec.days,
        "report": task.spec.report.as_ref().map(ToString::to_string),
        "report_url": (!task.report_url.is_empty()).then_some(&task.report_url),
        "total": counts.total,
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "bytes": counts.bytes,
        "files_per_s": task.rate(),
        "created": time(task.created),
        "started": task.started.map(time),
        "ended": task.ended.map(time),
        "updated": time(task.updated),
    })
}

/// A table for people.
fn table(tasks: &[Task]) -> String {
    let row = |task: &Task| {
        let counts = task.counts;
        vec![
            task.id.to_string(),
            task.spec.kind.word().to_owned(),
            task.state.to_string(),
            counts.total.to_string(),
            counts.succeeded.to_string(),
            counts.failed.to_string(),
            bytes(counts.bytes),
            time(task.created),
            task.spec.paths.first().cloned().unwrap_or_default(),
        ]
    };
    let head = [
        ("TASK", Align::Left),
        ("KIND", Align::Left),
        ("STATE", Align::Left),
        ("TOTAL", Align::Right),
        ("DONE", Align::Right),
        ("FAILED", Align::Right),
        ("BYTES", Align::Right),
        ("CREATED", Align::Left),
        ("PATH", Align::Left),
    ];
    render(&head, &tasks.iter().map(row).collect::<Vec<_>>())
}

/// Everything about one, for people.
fn details(fs: &FsName, task: &Task) -> String {
    let counts = task.counts;
    let state = if task.message.is_empty() {
        task.state.to_string()
    } else {
        format!("{}: {}", task.state, task.message.escape_debug())
    };
    let mut lines = vec![
        ("task", task.id.to_string()),
        ("file system", fs.to_string()),
        ("type", task.spec.kind.to_string()),
        ("state", state),
        ("files", format!("{} total, {} done, {} failed", counts.total, counts.succeeded, counts.failed)),
        ("skipped", format!("{} that are not the task's", counts.skipped)),
        ("bytes", bytes(counts.bytes)),
        ("rate", format!("{:.1} files/s", task.rate())),
        ("created", time(task.created)),
    ];
    lines.extend(task.started.map(|at| ("started", time(at))));
    lines.extend(task.ended.map(|at| ("ended", time(at))));
    if task.spec.days > 0 {
        lines.push(("days", format!("more than {} since the last use", task.spec.days)));
    }
    if !task.report_url.is_empty() {
        lines.push(("report", task.report_url.clone()));
    }
    lines.extend(task.spec.paths.iter().map(|path| ("path", path.clone())));
    lines.iter().map(|(name, value)| format!("{:<13} {value}\n", format!("{name}:"))).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use sateen_types::Timestamp;
    use sateen_types::repository::{TaskCounts, TaskId, TaskKind};

    use super::*;
    use crate::args::{Cli, Command, Repo};

    fn task() -> Task {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let spec = TaskSpec { kind: TaskKind::Release, paths: vec!["/a".to_owned()], report: None, days: 9 };
        Task {
            id: TaskId(0xabc),
            spec,
            state: TaskState::Failed,
            message: "ResourceBusy: a/b\n".to_owned(),
            counts: TaskCounts { total: 10, succeeded: 9, failed: 1, skipped: 3, bytes: 1 << 20 },
            created: at(0),
            started: Some(at(10)),
            ended: Some(at(15)),
            updated: at(15),
            report_url: "s3://b/r/task-1/failures.csv".to_owned(),
        }
    }

    #[test]
    fn people_see_lines_and_scripts_see_fields() {
        let fs: FsName = "scratch".parse().expect("a name");
        let text = details(&fs, &task());
        assert!(text.contains("state:        FAILED: ResourceBusy: a/b\\n\n"), "{text}");
        assert!(text.contains("files:        10 total, 9 done, 1 failed\n"), "{text}");
        assert!(text.contains("rate:         2.0 files/s\n"), "{text}");
        let row = table(&[task()]);
        assert!(row.contains("task-00000000000000abc  release  FAILED"), "{row}");
        let value = to_json(&fs, &task());
        assert_eq!((&value["lifecycle"], &value["failed"]), (&json!("FAILED"), &json!(1)));
        assert_eq!(value["type"], "RELEASE_DATA_FROM_FILESYSTEM");
        assert_eq!((code(&task(), true), code(&task(), false)), (DEGRADED, 0));
    }

    #[test]
    fn words_are_parsed() {
        let parse = |words: &str| {
            Cli::try_parse_from(format!("sateen repo {words}").split_whitespace()).map(|cli| match cli.command {
                Command::Repo { command, .. } => command,
                _ => panic!("not of repo"),
            })
        };
        let Ok(Repo::Task { command: TaskCommand::Start { kind, paths, days, .. } }) =
            parse("task start release scratch /a b/c --days 9 --report /r --wait")
        else {
            panic!("not parsed")
        };
        assert_eq!((TaskKind::from(kind), paths.len(), days), (TaskKind::Release, 2, Some(9)));
        parse("task show scratch task-00000000000000abc").expect("a number");
        for bad in
            ["task start release scratch", "task start copy scratch /", "task show scratch 7", "task cancel scratch"]
        {
            parse(bad).expect_err(bad);
        }
        parse("auto-release scratch --high 90 --low 80").expect("marks");
        parse("auto-release scratch --off --high 90 --low 80").expect_err("both");
        set(0, 0).expect_err("no mark");
        set(80, 90).expect_err("the wrong way round");
    }
}
