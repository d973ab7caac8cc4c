//! A plain map of offsets that says what [`Runs`] must answer; shared with the fuzz targets.

use std::collections::BTreeMap;

use countersign_statemachine::{ApplyError, Event, History, Run, Runs, Span, State, transition};

/// One offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    history: History,
    /// Whether there is a message, or only a gap that a run spans.
    message: bool,
}

/// The model, the runs under test, and what a store would hold of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checked {
    cells: BTreeMap<u64, Cell>,
    pub(crate) runs: Runs,
    stored: BTreeMap<u64, Run>,
    /// A rewind cut or changed a run with gaps: counts are estimates from here on.
    estimated: bool,
}

impl Checked {
    /// Applies an event to both and compares everything that can be seen. Returns whether the
    /// event was allowed.
    pub(crate) fn apply(&mut self, span: Span, event: Event) -> bool {
        let before: Vec<Run> = self.runs.iter().collect();
        let sparse = |run: &Run| run.count < run.span.len();
        let expected = self.next_cells(span, event);
        let actual = self.runs.apply(span, event);
        match (&expected, actual) {
            (Ok(next), Ok(())) => {
                let rewinds = event == Event::Rewound;
                self.estimated |=
                    rewinds && before.iter().any(|r| r.span.intersect(span).is_some() && sparse(r));
                self.cells.extend(next);
            }
            (Err(_), Err(error)) => {
                self.check_error(span, event, error);
                assert!(self.runs.iter().eq(before), "a refused event changed something");
                assert_eq!(self.runs.take_changes(), [], "a refused event left changes");
            }
            (expected, actual) => panic!("{event:?} on {span}: {expected:?} but {actual:?}"),
        }
        self.check();
        expected.is_ok()
    }

    /// Lets the runs go and rebuilds them from what was stored, as a restart does.
    pub(crate) fn restart(&mut self) {
        self.runs = Runs::restore(self.stored.values().copied());
        assert_eq!(self.runs.take_changes(), [], "an intact store needs no repair");
        self.check();
    }

    /// The cells of a span after an event; `Err` at the first offset that does not allow it.
    fn next_cells(&self, span: Span, event: Event) -> Result<BTreeMap<u64, Cell>, u64> {
        let mut next = BTreeMap::new();
        for offset in span.first..span.end {
            if let Some(cell) = next_cell(self.cells.get(&offset).copied(), event, offset)? {
                next.insert(offset, cell);
            }
        }
        if matches!(event, Event::Committed(_)) {
            close_gaps(span, &mut next);
        }
        Ok(next)
    }

    fn check_error(&self, span: Span, event: Event, error: ApplyError) {
        match error {
            ApplyError::Invalid { span: at, source } => {
                assert_eq!(span.intersect(at), Some(at), "the refusing part lies in the span");
                assert_eq!(source.event, event);
                for offset in at.first..at.end {
                    assert_eq!(self.cells[&offset].history.state, source.state);
                    assert!(transition(self.cells[&offset].history, event).is_err());
                }
            }
            ApplyError::Absent { offset, event: of } => {
                assert!(span.contains(offset) && !self.cells.contains_key(&offset));
                assert_eq!(of, event);
            }
        }
    }

    fn check(&mut self) {
        for change in self.runs.take_changes() {
            match change.run {
                Some(run) => self.stored.insert(change.first, run),
                None => self.stored.remove(&change.first),
            };
        }
        let actual: Vec<Run> = self.runs.iter().collect();
        let stored: Vec<Run> = self.stored.values().copied().collect();
        assert_eq!(stored, actual, "the changes, replayed, are the runs");
        assert_eq!(self.runs.len(), actual.len());
        assert_eq!(self.runs.is_empty(), actual.is_empty());

        let expected = self.expected_runs();
        let spans = |runs: &[Run]| runs.iter().map(|r| (r.span, r.history)).collect::<Vec<_>>();
        assert_eq!(spans(&actual), spans(&expected));
        for run in &actual {
            let unread = run.history.state == State::Pending && run.history.deliveries == 0;
            assert!(run.count <= run.span.len(), "{run:?} counts more than it spans");
            assert!(
                run.history.state.is_confirmed() || unread || run.count == run.span.len(),
                "{run:?} is not dense",
            );
        }
        if !self.estimated {
            assert_eq!(actual, expected, "counts");
        }
        self.check_lookups(&actual);
    }

    fn check_lookups(&self, runs: &[Run]) {
        let last = self.cells.keys().next_back().copied().unwrap_or(0);
        for offset in 0..last + 2 {
            let at = self.runs.at(offset);
            let history = self.cells.get(&offset).map(|cell| cell.history);
            assert_eq!(at.map(|run| run.history), history, "at {offset}");
            assert_eq!(at, runs.iter().find(|run| run.span.contains(offset)).copied());
        }
        let middle = Span { first: last / 3, end: last / 3 + last / 2 + 1 };
        let overlap = runs.iter().filter(|run| run.span.intersect(middle).is_some());
        assert!(overlap.eq(&self.runs.overlapping(middle)), "overlapping {middle}");
    }

    /// The longest possible runs of the cells.
    fn expected_runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (&offset, cell) in &self.cells {
            let message = u64::from(cell.message);
            match runs.last_mut() {
                Some(run) if run.span.end == offset && run.history == cell.history => {
                    run.span.end += 1;
                    run.count += message;
                }
                _ => {
                    let span = Span::one(offset);
                    runs.push(Run { span, count: message, history: cell.history });
                }
            }
        }
        runs
    }
}

/// `None`: the offset is a gap that a commit closes.
fn next_cell(cell: Option<Cell>, event: Event, offset: u64) -> Result<Option<Cell>, u64> {
    let closes = matches!(event, Event::Committed(_) | Event::FoundDone(_));
    let (history, message) = match (cell, event) {
        (None, Event::Start | Event::Intervened(_)) => (History::NEW, true),
        (Some(cell), Event::Start | Event::Intervened(_)) => (cell.history, true),
        (None, Event::Committed(_)) => return Ok(None),
        (Some(cell), Event::Committed(_)) if cell.history.state == State::Pending => {
            return Ok(None);
        }
        (None, Event::FoundDone(outcome)) => {
            let history = History { state: State::Confirmed(outcome), ..History::NEW };
            return Ok(Some(Cell { history, message: false }));
        }
        (Some(cell), _) if closes && cell.history.state.is_confirmed() => return Ok(Some(cell)),
        (Some(cell), _) => (cell.history, cell.message),
        (None, _) => return Err(offset),
    };
    let (history, _) = transition(history, event).map_err(|_| offset)?;
    Ok(Some(Cell { history, message }))
}

/// Gives each gap the history before it, or at the start of the span the one after it.
fn close_gaps(span: Span, cells: &mut BTreeMap<u64, Cell>) {
    let first = cells.values().next().map_or(History::CLEAN, |cell| cell.history);
    let mut history = first;
    for offset in span.first..span.end {
        history = cells.entry(offset).or_insert(Cell { history, message: false }).history;
    }
}
