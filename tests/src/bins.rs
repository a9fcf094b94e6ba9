//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// Directory of the binaries under test: `SATEEN_BIN_DIR`, else the build directory this test was built into.
pub fn dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("SATEEN_BIN_DIR") {
        return PathBuf::from(dir);
    }
    // <target>/release/deps/<test executable>
    let exe = std::env::current_exe().expect("the path of this test executable is known");
    exe.parent().and_then(Path::parent).expect("a test executable is in <target>/<profile>/deps").to_owned()
}

/// Path of a program under test. Panics with what to build if it is not there.
pub fn path(name: &str) -> PathBuf {
    let path = dir().join(name);
    assert!(
        path.is_file(),
        "{} does not exist; run `cargo build --release -p sateen-mds -p sateen-oss -p sateen-dra-sync -p sateen-dev-s3 -p sateen-cli`, or set SATEEN_BIN_DIR",
        path.display()
    );
    path
}

/// Path of a tool that `scripts/test-tools.sh` installs (pjdfstest, fsx).
pub fn tool(name: &str) -> PathBuf {
    installed(&format!("bin/{name}"))
}

/// Path of a program of the Python environment that `scripts/test-tools.sh` installs (moto_server, python with boto3, aws).
pub fn peer(name: &str) -> PathBuf {
    installed(&format!("peers/bin/{name}"))
}

fn installed(below: &str) -> PathBuf {
    let root = std::env::var_os("SATEEN_TOOLS_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"));
        cache.join("sateen/tools")
    });
    let path = root.join(below);
    assert!(path.is_file(), "{} does not exist; run scripts/test-tools.sh", path.display());
    path
}
