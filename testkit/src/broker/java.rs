//! What is told to Java.

use std::path::Path;
use std::process::{Command, Stdio};

use data_encoding::BASE64URL_NOPAD;

use super::{LocalKafkaError, LocalKafkaOptions};

/// A name for a new cluster.
pub(super) fn new_cluster_id() -> String {
    // A leading '-', which one id in 64 would have, is taken for an option.
    let mut id: [u8; 16] = rand::random();
    id[0] &= 0x7f;
    BASE64URL_NOPAD.encode(&id)
}

/// What the broker is started with.
pub(super) fn broker_args(
    options: &LocalKafkaOptions,
    class_path: &str,
    properties: &Path,
) -> Vec<String> {
    let mut args: Vec<String> = JVM_FLAGS.iter().map(ToString::to_string).collect();
    args.push(format!("-Xmx{}m", options.heap_mb));
    args.extend(["-cp".to_owned(), class_path.to_owned(), "kafka.Kafka".to_owned()]);
    args.push(properties.display().to_string());
    args
}

/// For a short start and little memory rather than for throughput.
const JVM_FLAGS: &[&str] = &[
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    // These two print every setting at every start.
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
];

/// Formats the data directory, unless it has been.
pub(super) fn format(
    class_path: &str,
    cluster_id: &str,
    properties: &Path,
    data: &Path,
) -> Result<(), LocalKafkaError> {
    if data.join("meta.properties").exists() {
        return Ok(());
    }
    let output = Command::new("java")
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx128m", "-cp", class_path])
        .args(["kafka.tools.StorageTool", "format", "--cluster-id", cluster_id, "--config"])
        .arg(properties)
        .stdin(Stdio::null())
        .output()
        .map_err(LocalKafkaError::spawn("java", "openjdk-17-jre-headless"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(LocalKafkaError::Format {
        data: data.to_owned(),
        status: output.status,
        output: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
    })
}
