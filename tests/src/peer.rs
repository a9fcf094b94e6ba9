//! Stores that nobody here wrote: moto's server (with a queue), Garage and s3s-fs, and boto3 and the AWS CLI to look at them from outside.
//!
//! `scripts/test-tools.sh` installs all of them, pinned.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::command::{Done, run_ok};
use crate::ports::Port;
use crate::process::Process;
use crate::s3::{ACCESS_KEY, BUCKET, REGION, SECRET_KEY};
use crate::{bins, wait};

/// Longest one script or command may take on a loaded machine: starting Python alone takes seconds then.
const CALL: Duration = Duration::from_secs(120);
/// What every script begins with: clients, the bucket's name, arguments, `tell` for the result.
const PRELUDE: &str = "
import boto3, json, sys
from botocore.exceptions import ClientError
endpoint, bucket, args = sys.argv[1], sys.argv[2], sys.argv[3:]
s3 = boto3.client('s3', endpoint_url=endpoint)
sqs = boto3.client('sqs', endpoint_url=endpoint)
def tell(value): print(json.dumps(value))
";

/// A store with an empty bucket. Dropping it ends it.
#[derive(Debug)]
pub struct Peer {
    process: Process,
    port: Port,
    /// What Garage's nodes would talk through.
    _rpc: Option<Port>,
}

impl Peer {
    /// Starts moto's server; it logs into `dir`.
    #[track_caller]
    pub fn moto(dir: &Path) -> Peer {
        let port = Port::free();
        let args = ["-H".into(), "127.0.0.1".into(), "-p".into(), port.number().to_string().into()];
        let process = Process::start("moto", &bins::peer("moto_server"), &args, &dir.join("moto.log"), |_| {});
        let moto = Peer { process, port, _rpc: None }.listening();
        moto.python("s3.create_bucket(Bucket=bucket); tell(None)", &[]);
        moto
    }

    /// Starts Garage with one node, everything in `dir`.
    #[track_caller]
    pub fn garage(dir: &Path) -> Peer {
        let (port, rpc) = (Port::free(), Port::free());
        let config = dir.join("garage.toml");
        let text = format!(
            "metadata_dir = {:?}\ndata_dir = {:?}\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"{}\"\nrpc_public_addr = \"{}\"\nrpc_secret = \"{}\"\n\
             [s3_api]\ns3_region = \"{REGION}\"\napi_bind_addr = \"{}\"\n",
            dir.join("garage-meta"),
            dir.join("garage-data"),
            rpc.address(),
            rpc.address(),
            "5a".repeat(32),
            port.address(),
        );
        std::fs::write(&config, text).expect("the configuration can be written");
        let args = ["-c".into(), config.into(), "server".into(), "--single-node".into(), "--default-bucket".into()];
        let process = Process::start("garage", &bins::tool("garage"), &args, &dir.join("garage.log"), |command| {
            command
                .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
                .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY)
                .env("GARAGE_DEFAULT_BUCKET", BUCKET)
                .env("RUST_LOG", "garage=info");
        });
        Peer { process, port, _rpc: Some(rpc) }.listening()
    }

    /// Starts s3s-fs on a directory below `dir`.
    #[track_caller]
    pub fn s3s_fs(dir: &Path) -> Peer {
        let (port, root) = (Port::free(), dir.join("s3s-fs"));
        std::fs::create_dir_all(root.join(BUCKET)).expect("made");
        let number = port.number().to_string();
        let given = ["--host", "127.0.0.1", "--port", &number, "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY];
        let args: Vec<OsString> = given.iter().map(Into::into).chain([root.into_os_string()]).collect();
        let process = Process::start("s3s-fs", &bins::tool("s3s-fs"), &args, &dir.join("s3s-fs.log"), |_| {});
        Peer { process, port, _rpc: None }.listening()
    }

    #[track_caller]
    fn listening(mut self) -> Peer {
        wait::until("a store that listens", wait::SERVER, || {
            self.process.assert_runs();
            std::net::TcpStream::connect(self.port.address()).ok()
        });
        self
    }

    /// Where it answers, for all services.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// Runs a script with boto3 (see [`PRELUDE`]); gives what it tells.
    #[track_caller]
    pub fn python(&self, script: &str, args: &[&str]) -> serde_json::Value {
        let mut command = Command::new(bins::peer("python"));
        command.arg("-c").arg(format!("{PRELUDE}{script}")).arg(self.endpoint()).arg(BUCKET).args(args);
        let done = run_ok(keyed(&mut command), CALL);
        serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done}"))
    }

    /// Runs the AWS CLI.
    #[track_caller]
    pub fn aws(&self, args: &[&str]) -> Done {
        let mut command = Command::new(bins::peer("aws"));
        command.arg("--endpoint-url").arg(self.endpoint()).args(args);
        run_ok(keyed(&mut command), CALL)
    }

    /// Makes a queue of moto's to which the bucket tells every change; gives its URL.
    #[track_caller]
    pub fn queue(&self) -> String {
        let script = "
url = sqs.create_queue(QueueName='events')['QueueUrl']
arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=['QueueArn'])['Attributes']['QueueArn']
wanted = [{'QueueArn': arn, 'Events': ['s3:ObjectCreated:*', 's3:ObjectRemoved:*']}]
s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={'QueueConfigurations': wanted})
tell(url)
";
        self.python(script, &[]).as_str().expect("a URL").to_owned()
    }
}

/// Nothing of the machine's own settings counts.
fn keyed(command: &mut Command) -> &mut Command {
    command
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("AWS_DEFAULT_REGION", REGION)
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_ENDPOINT_URL")
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY")
        .env("NO_PROXY", "127.0.0.1")
}
