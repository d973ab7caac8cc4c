//! The results as charts: bars with ranges for throughput, percentiles for latency.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::SegmentValue;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::peer::Peer;
use crate::results::{CaseResult, LatencyResult, LatencyRow, Results, Spread};

const WIDTH: u32 = 900;
const ROW_HEIGHT: u32 = 24;
/// Title, axis and legend.
const REST_HEIGHT: u32 = 110;
const LABELS_WIDTH: u32 = 240;
const FONT: (&str, u32) = ("sans-serif", 14);
const TITLE_FONT: (&str, u32) = ("sans-serif", 18);
const NOBODY: RGBColor = RGBColor(0x44, 0x44, 0x44);

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One line of a chart, from above.
enum Row<'a, T> {
    /// A heading, or nothing.
    Heading(String),
    Data(String, RGBColor, &'a T),
}

impl<T> Row<'_, T> {
    fn label(&self) -> &str {
        match self {
            Self::Heading(label) | Self::Data(label, ..) => label,
        }
    }
}

/// Draws all charts into the directory.
pub(crate) fn draw(results: &Results, out: &Path) -> Result<()> {
    let mut drawn: Vec<&CaseResult> = Vec::new();
    for result in &results.throughput {
        if drawn.iter().any(|before| before.case.shares_chart(&result.case)) {
            continue;
        }
        drawn.push(result);
        let cases = results.throughput.iter().filter(|one| one.case.shares_chart(&result.case));
        let svg = throughput(&result.case.title(), cases)?;
        fs::write(out.join(format!("bench-throughput-{}.svg", result.case.slug())), svg)?;
    }
    for result in &results.latency {
        let name = format!("bench-latency-{}.svg", result.messages_per_s);
        fs::write(out.join(name), latency(result)?)?;
    }
    Ok(())
}

fn colour(peer: Option<Peer>) -> RGBColor {
    peer.map_or(NOBODY, |peer| {
        let (red, green, blue) = peer.rgb();
        RGBColor(red, green, blue)
    })
}

/// One chart with the cases that differ in partitions only.
fn throughput<'a>(title: &str, cases: impl Iterator<Item = &'a CaseResult>) -> Result<String> {
    let mut spreads = Vec::new();
    for CaseResult { case, peers } in cases {
        let of = |runs| Spread::of(runs, |run: &crate::results::Run| run.messages_per_s / 1e3);
        let partitions = if case.partitions == 1 { "partition" } else { "partitions" };
        let measured = peers.iter().filter_map(|one| Some((one.peer, of(&one.runs)?)));
        spreads.push((format!("{} {partitions}", case.partitions), measured.collect::<Vec<_>>()));
    }
    let most = spreads.iter().flat_map(|(_, peers)| peers).map(|(_, spread)| spread.max);
    let most = most.fold(1.0, f64::max);
    let mut rows = Vec::new();
    for (heading, peers) in &spreads {
        rows.push(Row::Heading(heading.clone()));
        rows.extend(
            peers
                .iter()
                .map(|(peer, spread)| Row::Data(peer.to_string(), colour(Some(*peer)), spread)),
        );
    }
    let title = format!("Thousand messages/s: {title}");
    on_canvas(rows.len(), |area| bars(area, &title, &rows, most))
}

/// A chart of rows, with room for their labels.
fn frame<'a, 'b>(area: &'a Area<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart
        .caption(title, TITLE_FONT)
        .margin(12)
        .margin_right(28)
        .x_label_area_size(36)
        .y_label_area_size(LABELS_WIDTH);
    chart
}

fn bars(area: &Area<'_>, title: &str, rows: &[Row<'_, Spread>], most: f64) -> Result<()> {
    let count = i32::try_from(rows.len())?;
    let mut chart = frame(area, title)
        // With one line more, which stays empty: a range of one has no labels.
        .build_cartesian_2d(0.0..most * 1.12, (0..count).into_segmented())?;
    let label = |at: &SegmentValue<i32>| label(rows, at);
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .x_label_formatter(&|thousands| format!("{thousands:.0}"))
        .y_labels(rows.len() + 1)
        .y_label_formatter(&label)
        .label_style(FONT)
        .draw()?;
    for (at, row) in (0..count).rev().zip(rows) {
        let Row::Data(_, colour, spread) = row else { continue };
        let Spread { min, median, max } = **spread;
        let corners = [(0.0, SegmentValue::Exact(at)), (median, SegmentValue::Exact(at + 1))];
        let mut bar = Rectangle::new(corners, colour.filled());
        bar.set_margin(3, 3, 0, 0);
        chart.draw_series([bar])?;
        let middle = SegmentValue::CenterOf(at);
        chart.draw_series([ErrorBar::new_horizontal(middle, min, median, max, BLACK, 8)])?;
        let style = FONT.into_text_style(area).pos(Pos::new(HPos::Left, VPos::Center));
        let end = (max, SegmentValue::CenterOf(at));
        let text = Text::new(format!("{median:.0}"), (6, 0), style);
        chart.draw_series([EmptyElement::at(end) + text])?;
    }
    Ok(())
}

/// The label of a line; the axis counts from below, and has an end that is no line.
fn label<T>(rows: &[Row<'_, T>], at: &SegmentValue<i32>) -> String {
    let (SegmentValue::CenterOf(at) | SegmentValue::Exact(at)) = at else {
        return String::new();
    };
    let row = usize::try_from(*at).ok().and_then(|at| rows.len().checked_sub(at + 1));
    row.and_then(|row| rows.get(row)).map_or_else(String::new, |row| row.label().to_owned())
}

fn latency(result: &LatencyResult) -> Result<String> {
    let measured = result.rows.iter().filter(|row| !row.runs.is_empty());
    let rows: Vec<Row<'_, LatencyRow>> =
        measured.map(|row| Row::Data(row.name(), colour(row.peer), row)).collect();
    let title = format!(
        "Latency at {} messages/s: p50 (circle), p99 (triangle), p99.9 (cross), ms",
        result.messages_per_s
    );
    on_canvas(rows.len(), |area| percentiles(area, &title, &rows))
}

/// The medians of p50, p99 and p99.9 of all rounds.
fn medians(row: &LatencyRow) -> Option<[f64; 3]> {
    let p50 = Spread::of(&row.runs, |run| run.p50_ms)?;
    let p99 = Spread::of(&row.runs, |run| run.p99_ms)?;
    let p999 = Spread::of(&row.runs, |run| run.p999_ms)?;
    // A logarithm has no zero.
    Some([p50.median, p99.median, p999.median].map(|ms| ms.max(0.1)))
}

fn percentiles(area: &Area<'_>, title: &str, rows: &[Row<'_, LatencyRow>]) -> Result<()> {
    let count = i32::try_from(rows.len())?;
    let figures = rows.iter().filter_map(|row| match row {
        Row::Heading(_) => None,
        Row::Data(_, _, row) => medians(row),
    });
    let (least, most) = figures.fold((1.0_f64, 10.0_f64), |(least, most), [p50, _, p999]| {
        (least.min(p50), most.max(p999))
    });
    let mut chart = frame(area, title)
        .build_cartesian_2d((least * 0.8..most * 1.3).log_scale(), (0..count).into_segmented())?;
    let label = |at: &SegmentValue<i32>| label(rows, at);
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(rows.len() + 1)
        .y_label_formatter(&label)
        .label_style(FONT)
        .draw()?;
    for (at, row) in (0..count).rev().zip(rows) {
        let Row::Data(_, colour, row) = row else { continue };
        let Some([p50, p99, p999]) = medians(row) else { continue };
        let point = |ms: f64| (ms, SegmentValue::CenterOf(at));
        chart.draw_series([PathElement::new([point(p50), point(p999)], colour.stroke_width(2))])?;
        chart.draw_series([Circle::new(point(p50), 5, colour.filled())])?;
        chart.draw_series([TriangleMarker::new(point(p99), 6, colour.filled())])?;
        chart.draw_series([Cross::new(point(p999), 5, colour.stroke_width(2))])?;
    }
    Ok(())
}

/// Gives the SVG of what is drawn on a white area with room for so many lines.
fn on_canvas(rows: usize, draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let height = REST_HEIGHT + ROW_HEIGHT * u32::try_from(rows)?;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Bound, Case, Data};
    use crate::results::{LatencyRun, PeerRuns, Run};

    fn run(messages_per_s: f64) -> Run {
        Run {
            messages_per_s,
            client_cpu_s: 1.0,
            broker_cpu_s: 1.0,
            peak_mb: 1.0,
            store_bytes: 0.0,
            start_s: 0.0,
            start_cpu_s: 0.0,
            whole_cpu_s: 0.0,
            records_per_marker: None,
        }
    }

    #[test]
    fn a_bar_says_what_was_measured() {
        let case =
            Case { bytes: 200, data: Data::Json, bound: Bound::Records, partitions: 4, records: 1 };
        let runs = vec![run(120_000.0), run(123_000.0), run(130_000.0)];
        let peers = vec![PeerRuns { peer: Peer::FranzGo, runs }];
        let svg = throughput("some case", [CaseResult { case, peers }].iter()).unwrap();
        for text in ["some case", "4 partitions", "franz-go", "123"] {
            assert!(svg.contains(text), "{text} is missing in {svg}");
        }
    }

    #[test]
    fn a_latency_has_its_setting() {
        let run =
            LatencyRun { p50_ms: 0.0, p99_ms: 9.0, p999_ms: 30.0, max_ms: 31.0, client_cpus: 0.1 };
        let row =
            LatencyRow { peer: Some(Peer::Raw), setting: "early".to_owned(), runs: vec![run] };
        let svg = latency(&LatencyResult { messages_per_s: 1_000, rows: vec![row] }).unwrap();
        assert!(svg.contains("raw rdkafka loop, early"), "{svg}");
    }
}
