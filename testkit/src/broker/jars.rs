//! Kafka's jars, fetched by Maven once and kept.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

use super::LocalKafkaError;

/// The version of Apache Kafka that is run.
pub const KAFKA_VERSION: &str = "4.4.0";

const CACHE_VARIABLE: &str = "COUNTERSIGN_KAFKA_CACHE";

/// `slf4j-simple` has the version of the `slf4j-api` that Kafka depends on.
const POM: &str = concat!(
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
      <version>"#,
    "4.4.0",
    r"</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"
);

/// The class path of the broker, fetching what is missing.
pub(super) fn class_path() -> Result<String, LocalKafkaError> {
    let cache = cache_dir();
    fs::create_dir_all(&cache).map_err(LocalKafkaError::file("making", &cache))?;
    let path = cache.join("lock");
    let lock = File::create(&path).map_err(LocalKafkaError::file("making", &path))?;
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(|errno| LocalKafkaError::file("locking", &path)(errno.into()))?;
    if !is_complete(&cache) {
        fetch(&cache)?;
    }
    Ok(jars_dir(&cache).join("*").to_string_lossy().into_owned())
}

fn cache_dir() -> PathBuf {
    if let Some(path) = env::var_os(CACHE_VARIABLE) {
        return path.into();
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = manifest.parent().unwrap_or(manifest);
    workspace.join(".cache").join(format!("kafka-{KAFKA_VERSION}"))
}

fn jars_dir(cache: &Path) -> PathBuf {
    cache.join("jars")
}

/// The marker repeats the pom, so that another pom is fetched anew.
fn is_complete(cache: &Path) -> bool {
    fs::read_to_string(cache.join("complete")).is_ok_and(|marker| marker == POM)
}

fn fetch(cache: &Path) -> Result<(), LocalKafkaError> {
    let jars = jars_dir(cache);
    if jars.exists() {
        fs::remove_dir_all(&jars).map_err(LocalKafkaError::file("removing", &jars))?;
    }
    let pom = cache.join("pom.xml");
    fs::write(&pom, POM).map_err(LocalKafkaError::file("writing", &pom))?;
    let output = Command::new("mvn")
        .args(["-q", "-B", "-DincludeScope=runtime", "-f"])
        .arg(&pom)
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
    fs::write(&marker, POM).map_err(LocalKafkaError::file("writing", &marker))
}

#[cfg(test)]
mod tests {
    use super::{KAFKA_VERSION, POM};

    #[test]
    fn pom_names_the_version() {
        assert!(POM.contains(&format!("<version>{KAFKA_VERSION}</version>")));
    }
}
