//! Any sequence of events on spans: `Runs` answers as a plain map of offsets.

#![no_main]

#[path = "../../statemachine/tests/model/mod.rs"]
mod model;

use arbitrary::Arbitrary;
use countersign_fuzz::{AnyEvent, Len, Offset};
use countersign_statemachine::Span;
use libfuzzer_sys::fuzz_target;
use model::Checked;

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Operation {
    /// Events on spans that pay no regard to the runs: mostly refused.
    Apply(Offset, Len, AnyEvent),
    /// The same, cut to the run at the offset.
    ApplyInRun(Offset, Len, AnyEvent),
    Restart,
}

/// Each is checked on its own, so that more only cost time.
const OPERATIONS_MAX: usize = 64;

fuzz_target!(|operations: Vec<Operation>| {
    let mut checked = Checked::default();
    let span = |first: Offset, len: Len| Span { first: first.0, end: first.0 + len.0 };
    for operation in operations.into_iter().take(OPERATIONS_MAX) {
        match operation {
            Operation::Apply(first, len, event) => {
                checked.apply(span(first, len), event.0);
            }
            Operation::ApplyInRun(first, len, event) => {
                let run = checked.runs.at(first.0).map_or(span(first, len), |run| run.span);
                if let Some(span) = run.intersect(span(first, len)) {
                    checked.apply(span, event.0);
                }
            }
            Operation::Restart => checked.restart(),
        }
    }
});
