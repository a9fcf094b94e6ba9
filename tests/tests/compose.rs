//! `docker-compose.yml` brings up a cluster in containers, and its volumes keep the data.
//!
//! Runs only where `SATEEN_TEST_DOCKER=1` (`make test` sets it if it can get a Docker engine, see
//! `scripts/test-docker.sh`). The image is made from the binaries under test on a Debian made by debootstrap, so no
//! image registry is asked.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sateen_tests::command::{Done, run, run_ok};
use sateen_tests::guard::Guard;
use sateen_tests::ports::Port;
use sateen_tests::scratch::Scratch;
use sateen_tests::{bins, wait};

/// Longest that any one command of Docker may take; debootstrap needs half a minute of an idle machine.
const DEADLINE: Duration = Duration::from_secs(300);
/// Programs that the image takes.
const PROGRAMS: [&str; 5] = ["sateen", "sateen-lfs", "sateen-mds", "sateen-oss", "sateen-dra-sync"];
/// Services that must be healthy.
const SERVICES: [&str; 5] = ["mds", "oss1", "oss2", "dra-sync", "client"];

/// Removes what a test made; `$2`: project, `$3`: its image, `$4`: the base image if it was made, else empty.
const REMOVE: &str = r#"
label=label=com.docker.compose.project=$2
docker ps -aq --filter $label | xargs -r docker rm -fv
docker volume ls -q --filter $label | xargs -r docker volume rm -f
docker network ls -q --filter $label | xargs -r docker network rm
docker image rm -f "$3" $4
"#;

#[test]
fn a_file_written_in_the_client_container_survives_down_and_up() {
    if std::env::var("SATEEN_TEST_DOCKER").as_deref() != Ok("1") {
        eprintln!("skipped: SATEEN_TEST_DOCKER=1 is not set; it needs a Docker engine (scripts/test-docker.sh start)");
        return;
    }
    let stack = Stack::new();
    stack.up();
    let written = stack.in_client(
        "cd /mnt/sateen && lfs setstripe -c -1 f && head -c 64M /dev/urandom >f && sync f && sha256sum f && lfs df -h .",
    );
    let sum = first_word(&written);
    assert_eq!(sum.len(), 64, "{written}");
    assert_eq!(written.stdout.matches("-OST").count(), 4, "four OSTs take part: {written}");

    stack.compose(&["down"]);
    assert!(stack.containers().is_empty(), "down left containers: {:?}", stack.containers());
    stack.up();
    let read = stack.in_client("cd /mnt/sateen && sha256sum f");
    assert_eq!(first_word(&read), sum, "the file has other bytes than before");
}

/// A compose project of our own, with an image of our own. Dropping it removes both.
struct Stack {
    docker_host: Option<String>,
    project: String,
    image: String,
    port: Port,
    made_base: bool,
    _guard: Guard,
}

impl Stack {
    /// Builds the image.
    fn new() -> Stack {
        let script = repository().join("scripts/test-docker.sh");
        let host = run_ok(Command::new(&script).arg("host"), DEADLINE).stdout.trim().to_owned();
        let docker_host = (!host.is_empty()).then_some(host);
        let base = run_ok(Command::new(&script).arg("base"), DEADLINE);
        let made_base = base.stdout.contains("made");
        let project = format!("sateen-test-{}", std::process::id());
        let image = format!("sateen:test-{}", std::process::id());
        let guard = Guard::new(
            &format!("{}{REMOVE}", docker_host.as_ref().map_or(String::new(), |h| format!("export DOCKER_HOST={h}\n"))),
            &[project.as_ref(), image.as_ref(), base_image(made_base).as_ref()],
        );
        let stack = Stack { docker_host, project, image, port: Port::free(), made_base, _guard: guard };
        stack.build();
        stack
    }

    fn build(&self) {
        let context = Scratch::new("compose");
        for program in PROGRAMS {
            std::fs::copy(bins::path(program), context.path().join(program)).expect("a program can be copied");
        }
        let mut build = self.docker("docker");
        build.args(["build", "--network", "none", "--target", "runtime-prebuilt", "--tag", &self.image, "--file"]);
        run_ok(build.arg(repository().join("deploy/Dockerfile")).arg(context.path()), DEADLINE);
    }

    /// Starts everything and waits until all services are healthy.
    fn up(&self) {
        self.compose(&["up", "--detach", "--no-build"]);
        for service in SERVICES {
            let healthy = wait::try_until(DEADLINE, || (self.health(service) == "healthy").then_some(()));
            assert!(healthy.is_some(), "{service} is {}\n{}", self.health(service), self.logs());
        }
    }

    fn health(&self, service: &str) -> String {
        let container = self.compose(&["ps", "-q", service]).stdout.trim().to_owned();
        let mut inspect = self.docker("docker");
        run(inspect.args(["inspect", "--format", "{{.State.Health.Status}}", &container]), DEADLINE)
            .stdout
            .trim()
            .into()
    }

    fn logs(&self) -> String {
        self.compose(&["logs", "--no-color", "--tail", "20"]).stdout
    }

    /// Runs a shell script in the client container.
    #[track_caller]
    fn in_client(&self, script: &str) -> Done {
        self.compose(&["exec", "-T", "client", "sh", "-ec", script])
    }

    /// Ids of the project's containers, running or not.
    fn containers(&self) -> String {
        let label = format!("label=com.docker.compose.project={}", self.project);
        run_ok(self.docker("docker").args(["ps", "-aq", "--filter", &label]), DEADLINE).stdout
    }

    #[track_caller]
    fn compose(&self, words: &[&str]) -> Done {
        let old = Command::new("docker-compose").arg("version").output().is_ok_and(|done| done.status.success());
        let mut command = self.docker(if old { "docker-compose" } else { "docker" });
        if !old {
            command.arg("compose");
        }
        run_ok(command.args(["--project-name", &self.project]).args(words), DEADLINE)
    }

    fn docker(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(repository()).env("SATEEN_IMAGE", &self.image);
        command.env("SATEEN_MDS_PORT", self.port.number().to_string());
        if let Some(host) = &self.docker_host {
            command.env("DOCKER_HOST", host);
        }
        command
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut logs = self.docker("docker-compose");
            logs.args(["--project-name", &self.project, "logs", "--no-color", "--tail", "20"]);
            if let Ok(done) = logs.output() {
                eprintln!("{}", String::from_utf8_lossy(&done.stdout));
            }
        }
        let mut remove = self.docker("sh");
        remove.args(["-c", REMOVE, "remove", "", &self.project, &self.image, base_image(self.made_base)]);
        match remove.output() {
            Ok(done) if done.status.success() => {}
            other => eprintln!("could not remove all of {}: {other:?}", self.project),
        }
    }
}

/// The base image, if it has to be removed again.
fn base_image(made: bool) -> &'static str {
    if made { "debian:bookworm-slim" } else { "" }
}

fn first_word(done: &Done) -> String {
    done.stdout.split_whitespace().next().unwrap_or_default().to_owned()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_owned()
}
