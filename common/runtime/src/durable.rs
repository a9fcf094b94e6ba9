//! Durable replacement of a small file. Nothing else in the servers renames a file.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Replaces `path` by `bytes` so that after a crash at any point it holds either the old or the new content, and the
/// new one once this has returned:
///
/// 1. write `path.tmp`, 2. fsync it, 3. rename it over `path`, 4. fsync the directory.
///
/// The caller is the only writer of `path`. A left-over `path.tmp` of a crash is overwritten.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = path.with_added_extension("tmp");
    let mut file = File::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temp, path)?;
    sync_parent(path)
}

/// Moves `from` into `dir`, which is made if it is missing, under its own name. Never over a file that is there.
pub fn move_into(from: &Path, dir: &Path) -> io::Result<()> {
    let name = from.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    create_dir_all(dir)?;
    let to = dir.join(name);
    if to.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    std::fs::rename(from, &to)?;
    sync_dir(dir)?;
    sync_parent(from)
}

/// Renames what is durable itself, durably, over what is at `to`. Both are in the same directory.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_parent(to)
}

/// Exchanges two files or directories that are durable themselves, in one step and durably. Both are in the same
/// directory.
pub fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    rustix::fs::renameat_with(rustix::fs::CWD, a, rustix::fs::CWD, b, rustix::fs::RenameFlags::EXCHANGE)?;
    sync_parent(a)
}

/// Makes the creation, removal or renaming of `path` durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(parent)
}

/// Makes the entries of `dir` durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` and its missing parents, durably.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_dir_all(parent)?;
    }
    match std::fs::create_dir(dir) {
        Ok(()) => sync_parent(dir),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_leaves_the_new_content_and_no_temporary_file() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("a/b");
        create_dir_all(path.parent().expect("has one")).expect("created");
        std::fs::write(path.with_added_extension("tmp"), "left over by a crash").expect("written");
        for content in ["one", "two"] {
            replace(&path, content.as_bytes()).expect("replaced");
            assert_eq!(std::fs::read_to_string(&path).expect("readable"), content);
        }
        assert_eq!(std::fs::read_dir(path.parent().expect("has one")).expect("listed").count(), 1);
    }

    #[test]
    fn a_file_is_moved_only_where_its_name_is_free() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (from, aside) = (dir.path().join("f"), dir.path().join("aside"));
        for content in ["one", "two"] {
            std::fs::write(&from, content).expect("written");
            let moved = move_into(&from, &aside);
            assert_eq!(moved.is_ok(), content == "one", "{moved:?}");
        }
        assert_eq!(std::fs::read(aside.join("f")).expect("readable"), b"one");
        assert_eq!(std::fs::read(&from).expect("still there"), b"two");
    }

    #[test]
    fn a_failed_replace_keeps_the_old_content() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("f");
        replace(&path, b"old").expect("replaced");
        std::fs::create_dir(path.with_added_extension("tmp")).expect("in the way");
        replace(&path, b"new").expect_err("cannot write the temporary file");
        assert_eq!(std::fs::read(&path).expect("readable"), b"old");
    }
}
