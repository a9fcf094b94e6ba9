//! Azurite, Microsoft's emulator of Azure Blob Storage, and Azure's client for Python to look at it from outside.
//!
//! `scripts/test-tools.sh` installs both, pinned.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::command::run_ok;
use crate::ports::Port;
use crate::process::Process;
use crate::{bins, wait};

/// Whose containers.
pub const ACCOUNT: &str = "sateentest";
/// Key of the account: the base64 of `a key that opens nothing else`.
pub const KEY: &str = "YSBrZXkgdGhhdCBvcGVucyBub3RoaW5nIGVsc2U=";
/// Name of the container.
pub const CONTAINER: &str = "data";
/// Longest one script may take on a loaded machine.
const CALL: Duration = Duration::from_secs(120);
/// What every script begins with: a client of the container, arguments, `tell` for the result.
const PRELUDE: &str = "
import json, sys
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient, ContentSettings, generate_container_sas, ContainerSasPermissions
endpoint, account, key, container, args = *sys.argv[1:5], sys.argv[5:]
service = BlobServiceClient(f'{endpoint}/{account}', credential={'account_name': account, 'account_key': key},
                            max_single_put_size=4 << 20, max_block_size=4 << 20)
blobs = service.get_container_client(container)
def put(name, data, **more): return blobs.upload_blob(name, data, overwrite=True, **more)
def tell(value): print(json.dumps(value))
";

/// An emulator with an empty container. Dropping it ends it.
#[derive(Debug)]
pub struct Azurite {
    process: Process,
    port: Port,
}

impl Azurite {
    /// Starts one; it keeps everything in memory and logs into `dir`.
    #[track_caller]
    pub fn start(dir: &Path) -> Azurite {
        let port = Port::free();
        let number = port.number().to_string();
        let given = ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--blobHost", "127.0.0.1"];
        let args = given.iter().chain(&["--blobPort", &number]).map(Into::into).collect::<Vec<_>>();
        let program = bins::tool("azurite-blob");
        let process = Process::start("azurite", &program, &args, &dir.join("azurite.log"), |command| {
            command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}")).current_dir(dir);
        });
        let mut azurite = Azurite { process, port };
        wait::until("an emulator that listens", wait::SERVER, || {
            azurite.process.assert_runs();
            std::net::TcpStream::connect(azurite.port.address()).ok()
        });
        azurite.python("blobs.create_container(); tell(None)", &[]);
        azurite
    }

    /// Where it answers, for all accounts.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// Runs a script with Azure's client (see [`PRELUDE`]); gives what it tells.
    #[track_caller]
    pub fn python(&self, script: &str, args: &[&str]) -> serde_json::Value {
        let mut command = Command::new(bins::peer("python"));
        command
            .arg("-c")
            .arg(format!("{PRELUDE}{script}"))
            .arg(self.endpoint())
            .args([ACCOUNT, KEY, CONTAINER])
            .args(args);
        let done = run_ok(&mut command, CALL);
        serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done}"))
    }
}
