//! The programs that are run, and how those that are not written in Rust are built.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::Peer;

/// What a benchmark needs beyond Rust.
struct Need {
    command: &'static str,
    why: &'static str,
    debian: &'static str,
}

const KAFKA: &[Need] = &[
    Need { command: "java", why: "runs Apache Kafka", debian: "openjdk-17-jre-headless" },
    Need { command: "mvn", why: "fetches Apache Kafka", debian: "maven" },
];
const STREAMS: &[Need] = &[Need {
    command: "javac",
    why: "compiles the peer streams",
    debian: "openjdk-17-jdk-headless",
}];
const FRANZ_GO: &[Need] = &[Need {
    command: "go",
    why: "compiles the peer franz-go",
    debian: "golang-go, 1.26 or newer",
}];

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) countersign: PathBuf,
    rust_peers: PathBuf,
    pub(crate) franz_go: PathBuf,
    streams: PathBuf,
}

impl Tools {
    /// Builds what the peers need.
    pub(crate) fn build(peers: &[Peer]) -> Result<Self, Box<dyn Error>> {
        check(peers)?;
        let release = env::current_exe()?;
        let release = release.parent().ok_or("the benchmark is in no directory")?;
        let target = release.parent().unwrap_or(release).join("bench-peers");
        let tools = Self {
            countersign: release.join("countersign"),
            rust_peers: release.join("bench-peer"),
            franz_go: target.join("franz-go"),
            streams: target.join("streams"),
        };
        for program in [&tools.countersign, &tools.rust_peers] {
            if !program.exists() {
                let program = program.display();
                return Err(format!("{program} is missing; start with `make bench-peers`").into());
            }
        }
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        if peers.contains(&Peer::FranzGo) {
            let mut go = Command::new("go");
            go.arg("build").arg("-C").arg(sources.join("franz-go"));
            run(go.arg("-o").arg(&tools.franz_go).arg("."))?;
        }
        if peers.contains(&Peer::Streams) {
            let mut maven = Command::new("mvn");
            maven.args(["-q", "-B", "-f"]).arg(sources.join("streams/pom.xml"));
            maven.arg(format!("-Dbench.target={}", tools.streams.display()));
            run(maven.arg("package"))?;
        }
        Ok(tools)
    }

    /// A peer that is written in Rust.
    pub(crate) fn rust_peer(&self, name: &str) -> Command {
        let mut command = Command::new(&self.rust_peers);
        command.arg(name);
        command
    }

    /// The peer that is written in Java.
    pub(crate) fn streams(&self) -> Command {
        let mut command = Command::new("java");
        // Without a bound the heap would grow to a quarter of the machine before it is collected.
        command.args(["-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"]);
        let streams = self.streams.display();
        command.arg(format!("{streams}/bench-streams.jar:{streams}/jars/*"));
        command.arg("bench.Copy");
        command
    }
}

fn check(peers: &[Peer]) -> Result<(), Box<dyn Error>> {
    let mut needs: Vec<&Need> = KAFKA.iter().collect();
    if peers.contains(&Peer::Streams) {
        needs.extend(STREAMS);
    }
    if peers.contains(&Peer::FranzGo) {
        needs.extend(FRANZ_GO);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = |need: &&Need| env::split_paths(&path).any(|dir| dir.join(need.command).is_file());
    let missing: Vec<String> = needs
        .into_iter()
        .filter(|need| !found(need))
        .map(|Need { command, why, debian }| format!("{command} ({why}; Debian: {debian})"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(format!("missing: {missing}; install it, or leave the peer out with --peers").into())
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let program = command.get_program().display();
    Err(format!("{program} failed, {}:\n{}", output.status, String::from_utf8_lossy(&text)).into())
}
