//! The results as tables of Markdown, for the terminal and the file.

use std::fmt::Write as _;

use comfy_table::{Table, presets::ASCII_MARKDOWN};

use crate::results::{
    CaseResult, LatencyResult, LatencyRow, PeerRuns, RestartResult, Results, Run, ScalingResult,
    Spread,
};

/// All of it.
pub(crate) fn document(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "# Countersign beside its peers\n\nWritten by `make bench-peers`; \
         [benches/README.md](../benches/README.md) says what is measured and how.\n\n\
         {}, {} cores shared with the broker, Linux {}. Kafka {}, librdkafka {}, franz-go {}, \
         Kafka Streams {}. Compression: {}.\n",
        machine.cpu,
        machine.cores,
        machine.linux,
        machine.kafka,
        machine.librdkafka,
        machine.franz_go,
        machine.kafka_streams,
        results.compression,
    );
    for case in &results.throughput {
        text.push_str(&throughput(case));
    }
    for case in &results.latency {
        text.push_str(&latency(case));
    }
    for result in &results.scaling {
        text.push_str(&scaling(result));
    }
    if let Some(result) = &results.restart {
        text.push_str(&restart(result));
    }
    for failure in &results.failures {
        write!(text, "\nFAILED: {failure}\n").expect("writing to a string does not fail");
    }
    text
}

/// One throughput case.
pub(crate) fn throughput(result: &CaseResult) -> String {
    let mut table = table(&RUN_COLUMNS);
    for PeerRuns { peer, runs } in &result.peers {
        table.add_row(run_row(peer.to_string(), runs));
    }
    format!("\n## {}\n\n{table}\n", result.case)
}

/// One series of the scaling.
fn scaling(result: &ScalingResult) -> String {
    let mut table = table(&RUN_COLUMNS);
    for point in &result.points {
        table.add_row(run_row(point.size.to_string(), &point.runs));
    }
    format!("\n## Scaling: {}\n\n{table}\n", result.series)
}

/// The starts after a kill -9.
fn restart(result: &RestartResult) -> String {
    let mut table = table(&["median (min to max)", "s", "store MB"]);
    table.add_row(vec![
        "kill -9 to the first output".to_owned(),
        spread(&result.starts, |start| start.seconds, 2, ""),
        median(&result.starts, |start| start.store_bytes as f64 / 1e6, 1),
    ]);
    let RestartResult { tracked, histories, .. } = result;
    format!(
        "\n## Starts with {tracked} messages tracked, {histories} with a history of their own\n\n\
         {table}\n"
    )
}

const RUN_COLUMNS: [&str; 8] = [
    "median (min to max)",
    "messages/s",
    "client CPU s / M",
    "broker CPU s / M",
    "peak MB",
    "store B / message",
    "start s",
    "records / marker",
];

fn run_row(name: String, runs: &[Run]) -> Vec<String> {
    let marked: Vec<f64> = runs.iter().filter_map(|run| run.records_per_marker).collect();
    vec![
        name,
        spread(runs, |run| run.messages_per_s / 1e3, 0, "k"),
        spread(runs, |run| run.client_cpu_s, 2, ""),
        spread(runs, |run| run.broker_cpu_s, 2, ""),
        median(runs, |run| run.peak_mb, 0),
        median(runs, |run| run.store_bytes, 2),
        median(runs, |run| run.start_s, 1),
        median(&marked, |records| *records, 0),
    ]
}

/// One rate.
pub(crate) fn latency(result: &LatencyResult) -> String {
    let mut table =
        table(&["median (min to max)", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "client CPUs"]);
    for row in &result.rows {
        let LatencyRow { runs, .. } = row;
        table.add_row(vec![
            row.name(),
            spread(runs, |run| run.p50_ms, 1, ""),
            spread(runs, |run| run.p99_ms, 1, ""),
            spread(runs, |run| run.p999_ms, 1, ""),
            median(runs, |run| run.max_ms, 0),
            median(runs, |run| run.client_cpus, 2),
        ]);
    }
    format!("\n## Latency at {} messages/s\n\n{table}\n", result.messages_per_s)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    table
}

fn spread<R>(runs: &[R], figure: impl Fn(&R) -> f64, digits: usize, unit: &str) -> String {
    match Spread::of(runs, figure) {
        Some(Spread { min, median, max }) if runs.len() > 1 => {
            format!("{median:.digits$}{unit} ({min:.digits$} to {max:.digits$})")
        }
        Some(Spread { median, .. }) => format!("{median:.digits$}{unit}"),
        None => "-".to_owned(),
    }
}

fn median<R>(runs: &[R], figure: impl Fn(&R) -> f64, digits: usize) -> String {
    Spread::of(runs, figure)
        .map_or_else(|| "-".to_owned(), |spread| format!("{:.digits$}", spread.median))
}
