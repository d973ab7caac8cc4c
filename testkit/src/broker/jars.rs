//! Kafka's jars, fetched by Maven once and kept.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

use super::{KafkaVersion, LocalKafkaError};

const CACHE_VARIABLE: &str = "COUNTERSIGN_KAFKA_CACHE";

/// What Maven is to fetch. `slf4j-simple` has the version of the `slf4j-api` that Kafka depends on.
fn pom(version: KafkaVersion) -> String {
    format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>countersign</groupId>
  <artifactId>local-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"#
    )
}

/// The class path of the broker, fetching what is missing.
pub(super) fn class_path(version: KafkaVersion) -> Result<String, LocalKafkaError> {
    let cache = cache_dir(version);
    let pom = pom(version);
    fs::create_dir_all(&cache).map_err(LocalKafkaError::file("making", &cache))?;
    let path = cache.join("lock");
    let lock = File::create(&path).map_err(LocalKafkaError::file("making", &path))?;
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(|errno| LocalKafkaError::file("locking", &path)(errno.into()))?;
    if !is_complete(&cache, &pom) {
        fetch(&cache, &pom)?;
    }
    Ok(jars_dir(&cache).join("*").to_string_lossy().into_owned())
}

/// Versions do not share a directory: a test of each may start at the same time.
fn cache_dir(version: KafkaVersion) -> PathBuf {
    let all = env::var_os(CACHE_VARIABLE).map_or_else(
        || {
            let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
            manifest.parent().unwrap_or(manifest).join(".cache")
        },
        PathBuf::from,
    );
    all.join(format!("kafka-{version}"))
}

fn jars_dir(cache: &Path) -> PathBuf {
    cache.join("jars")
}

/// The marker repeats the pom, so that another pom is fetched anew.
fn is_complete(cache: &Path, pom: &str) -> bool {
    fs::read_to_string(cache.join("complete")).is_ok_and(|marker| marker == pom)
}

fn fetch(cache: &Path, pom: &str) -> Result<(), LocalKafkaError> {
    let jars = jars_dir(cache);
    if jars.exists() {
        fs::remove_dir_all(&jars).map_err(LocalKafkaError::file("removing", &jars))?;
    }
    let file = cache.join("pom.xml");
    fs::write(&file, pom).map_err(LocalKafkaError::file("writing", &file))?;
    let output = Command::new("mvn")
        .args(["-q", "-B", "-DincludeScope=runtime", "-f"])
        .arg(&file)
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .arg("dependency:copy-dependencies")
        .stdin(Stdio::null())
        .output()
        .map_err(LocalKafkaError::spawn("mvn", "maven"))?;
    if !output.status.success() {
        let output_text = [output.stdout, output.stderr].concat();
        return Err(LocalKafkaError::Fetch {
            cache: cache.to_owned(),
            status: output.status,
            output: String::from_utf8_lossy(&output_text).into_owned(),
        });
    }
    let marker = cache.join("complete");
    fs::write(&marker, pom).map_err(LocalKafkaError::file("writing", &marker))
}
