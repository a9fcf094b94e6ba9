//! Rules of the house that a compiler does not know. Each names the place that breaks it.

use std::path::{Path, PathBuf};

/// A file longer than this probably holds two concepts.
const LINES_MAX: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").to_owned()
}

/// Every tracked-looking file below `dir` with one of the endings, build products left out.
fn files(dir: &Path, endings: &[&str], out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("readable directory") {
        let path = entry.expect("readable entry").path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_dir() && !path.is_symlink() {
            if !["target", ".git", ".dev", "mnt"].contains(&name) {
                files(&path, endings, out);
            }
        } else if endings.iter().any(|e| name.ends_with(e)) {
            out.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    files(&root(), &[".rs"], &mut paths);
    paths.into_iter().map(|p| (p.clone(), std::fs::read_to_string(p).expect("readable source"))).collect()
}

#[test]
fn no_source_file_has_grown_past_one_concept() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|(_, text)| text.lines().count() > LINES_MAX)
        .map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count()))
        .collect();
    assert!(long.is_empty(), "split these:\n{}", long.join("\n"));
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|(_, text)| !text.starts_with("//!") && !text.starts_with("#!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "these files do not start with //! and a sentence:\n{}", silent.join("\n"));
}

/// The ladder: a crate may use the crates named here and nothing else of ours (except in tests).
#[test]
fn crates_depend_only_downwards() {
    let ladder: [(&str, &[&str]); 10] = [
        ("common/types", &[]),
        ("common/runtime", &["sateen-types"]),
        ("proto", &["sateen-types"]),
        ("client-lib", &["sateen-types", "sateen-proto"]),
        ("client-lib/fuse", &["sateen-types", "sateen-client"]),
        ("mds", &["sateen-types", "sateen-runtime", "sateen-proto"]),
        ("oss", &["sateen-types", "sateen-runtime", "sateen-proto"]),
        ("dra-sync", &["sateen-types", "sateen-runtime", "sateen-proto", "sateen-client"]),
        ("dev-s3", &["sateen-types", "sateen-runtime"]),
        ("cli", &["sateen-types", "sateen-runtime", "sateen-proto", "sateen-client", "sateen-fuse"]),
    ];
    for (dir, allowed) in ladder {
        let manifest = std::fs::read_to_string(root().join(dir).join("Cargo.toml")).expect("a manifest");
        let section = manifest.split("\n[").find(|s| s.starts_with("dependencies]")).unwrap_or_default();
        for line in section.lines().filter(|l| l.starts_with("sateen-")) {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(allowed.contains(&name), "{dir} must not depend on {name}");
        }
    }
}

#[test]
fn foreign_types_stay_in_their_modules() {
    // (what, where it may appear)
    let homes: [(&str, &[&str]); 5] = [
        (
            "object_store::",
            &[
                "bench/src/bucket.rs",
                "bench/src/limits/s3.rs",
                "dra-sync/src/remote/azure.rs",
                "dra-sync/src/remote/http.rs",
                "dra-sync/src/remote/s3.rs",
                "tests/src/s3.rs",
                "tests/src/s3_proxy/sign.rs",
                "tests/tests/repositories.rs",
            ],
        ),
        (
            "s3s::",
            &["dev-s3/src/service.rs", "dev-s3/src/server.rs", "dev-s3/src/multipart.rs", "dev-s3/src/notify.rs"],
        ),
        ("rocksdb::", &["mds/src/store/", "oss/src/store/"]),
        ("use fuser::", &["client-lib/fuse/src/", "bench/src/limits/fuse_null.rs"]),
        ("std::fs::rename(", &["common/runtime/src/durable.rs", "tests/", "cli/", "bench/"]),
    ];
    for (path, text) in sources() {
        let relative = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        if relative.starts_with("tests/tests/house_rules.rs") {
            continue;
        }
        for (what, allowed) in homes {
            if text.contains(what) {
                assert!(
                    allowed.iter().any(|a| relative.starts_with(a)),
                    "{relative} uses {what}; its home is {allowed:?}"
                );
            }
        }
    }
}

#[test]
fn pages_link_only_to_what_exists() {
    let mut pages = Vec::new();
    files(&root(), &[".md"], &mut pages);
    let mut broken = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("readable page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.contains(' ') {
                continue;
            }
            if !page.parent().expect("a page has a directory").join(target).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}
