//! Keys of `tasks`: tasks, what is left of the one that executes, and when files are released by themselves.

use sateen_types::repository::TaskId;
use sateen_types::{Fid, FsResult, RepositoryId};

use super::{array, sized};

/// What every key of a task starts with.
pub const TASK: &[u8] = b"t";
/// When files are released by themselves.
pub const AUTO_RELEASE: &[u8] = b"a";

fn of_task(tag: u8, id: TaskId, rest: &[u8]) -> Vec<u8> {
    [&[tag][..], &id.0.to_be_bytes(), rest].concat()
}

/// One task.
pub fn task(id: TaskId) -> Vec<u8> {
    of_task(b't', id, &[])
}

/// What was asked for.
pub fn spec(id: TaskId) -> Vec<u8> {
    of_task(b's', id, &[])
}

/// All that is left to be looked at.
pub fn todo(id: TaskId) -> Vec<u8> {
    of_task(b'd', id, &[])
}

/// One thing that is left to be looked at.
pub fn todo_item(id: TaskId, number: u64) -> Vec<u8> {
    of_task(b'd', id, &number.to_be_bytes())
}

/// All files that others are at work on for the task.
pub fn under_way(id: TaskId) -> Vec<u8> {
    of_task(b'w', id, &[])
}

/// One file that others are at work on.
pub fn under_way_file(id: TaskId, fid: Fid) -> Vec<u8> {
    of_task(b'w', id, &fid.to_bytes())
}

/// All lines of the report.
pub fn failures(id: TaskId) -> Vec<u8> {
    of_task(b'e', id, &[])
}

/// One line of the report.
pub fn failure(id: TaskId, number: u64) -> Vec<u8> {
    of_task(b'e', id, &number.to_be_bytes())
}

/// What the import of a link is limited to.
pub fn scope(id: RepositoryId) -> Vec<u8> {
    [&b"i"[..], &id.0.to_be_bytes()].concat()
}

/// The task of a key of a task.
pub fn parse_task(key: &[u8]) -> FsResult<TaskId> {
    sized(key, 9, "a task")?;
    Ok(TaskId(u64::from_be_bytes(array(key, 1, "a task")?)))
}

/// The number at the end of a key of something to do, or of a line of a report.
pub fn parse_number(key: &[u8]) -> FsResult<u64> {
    sized(key, 17, "a part of a task")?;
    Ok(u64::from_be_bytes(array(key, 9, "a part of a task")?))
}

/// The file of a key of one that others are at work on.
pub fn parse_file(key: &[u8]) -> FsResult<Fid> {
    sized(key, 25, "a file of a task")?;
    Ok(Fid::from_bytes(array(key, 9, "a file of a task")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_reversible_and_in_the_order_of_numbers() {
        let id = TaskId(7);
        assert_eq!(parse_task(&task(id)), Ok(id));
        assert_eq!(parse_number(&todo_item(id, 300)), Ok(300));
        assert_eq!(parse_number(&failure(id, 1)), Ok(1));
        assert_eq!(parse_file(&under_way_file(id, Fid::ROOT)), Ok(Fid::ROOT));
        assert!(todo_item(id, 2) < todo_item(id, 256) && todo_item(id, 256).starts_with(&todo(id)));
        parse_task(b"t").expect_err("too short");
        parse_number(&task(id)).expect_err("of something else");
        parse_file(&failure(id, 1)).expect_err("of something else");
    }
}
