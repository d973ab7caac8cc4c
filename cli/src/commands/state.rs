//! `countersign state`: counts and ranges per partition and state.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use comfy_table::{Cell, CellAlignment, Table, presets};
use countersign::inspection::{self, Counts, PartitionState, Range, StateReport};

use super::{Format, journal};
use crate::failure::{self, Failure};
use crate::stdout;

/// Show how many messages of each partition are in which state, and where
///
/// Reads the store of a processor that has ended; nothing is changed.
#[derive(clap::Args)]
#[command(after_help = failure::HELP)]
pub(crate) struct Args {
    /// The directory of the store
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// How the report is written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let report = inspection::state(&journal(&args.store)?)?;
    match args.format {
        Format::Json => stdout::json(&report),
        Format::Table => stdout::write(&tables(&report).map_err(Failure::internal)?),
    }
}

fn tables(report: &StateReport) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let StateReport { cluster_id, group, instance, partitions, .. } = report;
    writeln!(out, "group {group}, instance {instance}, cluster {cluster_id}")?;
    if partitions.is_empty() {
        writeln!(out, "\nno message has been received yet")?;
        return Ok(out);
    }
    writeln!(out, "\n{}", counts(report).trim_fmt())?;
    writeln!(out, "\n{}", ranges(partitions).trim_fmt())?;
    if !report.last_transactions.is_empty() {
        writeln!(out, "\nlast transactions, newest first\n{}", transactions(report).trim_fmt())?;
    }
    Ok(out)
}

fn counts(report: &StateReport) -> Table {
    let mut table = table(&[
        "partition",
        "messages",
        "pending",
        "processing",
        "in doubt",
        "confirmed",
        "rolled_back",
        "how",
    ]);
    for PartitionState { topic, partition, counts, .. } in &report.partitions {
        table.add_row(row(format!("{topic}/{partition}"), counts));
    }
    table.add_row(row("all".to_owned(), &report.totals));
    align_right(&mut table, 1..7);
    table
}

fn row(name: String, counts: &Counts) -> Vec<Cell> {
    let details = |by: &BTreeMap<String, u64>| -> Vec<String> {
        by.iter().map(|(name, count)| format!("{name} {count}")).collect()
    };
    let how = [details(&counts.confirmed_by_outcome), details(&counts.rolled_back_by_reason)];
    let numbers = [
        counts.total,
        counts.pending,
        counts.processing,
        counts.in_doubt,
        counts.confirmed,
        counts.rolled_back,
    ];
    let mut cells = vec![Cell::new(name)];
    cells.extend(numbers.map(Cell::new));
    cells.push(Cell::new(how.concat().join(", ")));
    cells
}

fn ranges(partitions: &[PartitionState]) -> Table {
    let mut table = table(&["partition", "state", "offsets"]);
    for PartitionState { topic, partition, ranges, .. } in partitions {
        for (state, ranges) in ranges {
            let mut offsets: Vec<String> = ranges.first.iter().map(offsets).collect();
            if ranges.more > 0 {
                offsets.push(format!("and {} more ranges", ranges.more));
            }
            let place = format!("{topic}/{partition}");
            table.add_row([place, (*state).to_owned(), offsets.join(", ")]);
        }
    }
    table
}

fn offsets(Range { first, last }: &Range) -> String {
    if first == last { first.to_string() } else { format!("{first} to {last}") }
}

fn transactions(report: &StateReport) -> Table {
    let header = ["at (UTC)", "instance", "number", "end", "messages", "outputs", "open for"];
    let mut table = table(&header);
    for it in &report.last_transactions {
        let open = format!("{}.{} ms", it.open_us / 1_000, it.open_us % 1_000 / 100);
        let end = it.end.to_owned();
        let numbers = [it.messages, it.outputs].map(|number| number.to_string());
        let [messages, outputs] = numbers;
        let (at, instance) = (it.at.clone(), it.instance.clone());
        table.add_row([at, instance, it.number.to_string(), end, messages, outputs, open]);
    }
    align_right(&mut table, [2, 4, 5, 6]);
    table
}

/// Without frames: rows can be cut and sorted with the usual tools.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn align_right(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
