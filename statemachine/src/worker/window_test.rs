//! The window against a map of offsets.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn phases() -> impl Strategy<Value = Phase> {
    prop_oneof![
        Just(Phase::Ready),
        Just(Phase::Running),
        Just(Phase::Waiting),
        Just(Phase::Finished),
        Just(Phase::Done),
        (1..3_u64).prop_map(|number| Phase::Sent { number }),
        Just(Phase::Received),
        (1..3_u64).prop_map(|write| Phase::Admitting { write }),
    ]
}

fn spans() -> impl Strategy<Value = Span> {
    (0..30_u64, 1..6_u64).prop_map(|(first, len)| Span { first, end: first + len })
}

fn build(sets: &[(Span, Phase)]) -> (Window, BTreeMap<u64, Phase>) {
    let (mut window, mut map) = (Window::default(), BTreeMap::new());
    for &(span, phase) in sets {
        window.set(span, phase);
        map.extend((span.first..span.end).map(|at| (at, phase)));
    }
    (window, map)
}

fn flat(window: &Window) -> BTreeMap<u64, Phase> {
    let cells = |piece: Piece| (piece.span.first..piece.span.end).map(move |at| (at, piece.phase));
    window.iter().flat_map(cells).collect()
}

/// What is counted along the way is what a walk through the pieces finds.
fn check_counts(window: &Window) -> Result<(), TestCaseError> {
    let pieces: Vec<Piece> = window.iter().collect();
    for phase in [
        Phase::Received,
        Phase::Admitting { write: 1 },
        Phase::Ready,
        Phase::Running,
        Phase::Waiting,
        Phase::Finished,
        Phase::Sent { number: 1 },
        Phase::Done,
    ] {
        let same = |piece: &&Piece| piece.phase.kind() == phase.kind();
        let messages: u64 = pieces.iter().filter(same).map(|piece| piece.span.len()).sum();
        prop_assert_eq!(window.count(phase), messages, "{:?}", phase);
        let begins = |(nth, piece): &(usize, &Piece)| {
            same(piece) && (*nth == 0 || pieces[nth - 1].phase != piece.phase)
        };
        let groups = pieces.iter().enumerate().filter(begins).count() as u64;
        prop_assert_eq!(window.groups(phase), groups, "{:?}", phase);
    }
    let finished: Vec<Span> = window.finished().collect();
    prop_assert_eq!(finished, window.spans(|phase| phase == Phase::Finished));
    Ok(())
}

proptest! {
    #[test]
    fn it_is_a_map_of_offsets(
        sets in prop::collection::vec((spans(), phases()), 0..12),
        below in 0..35_u64,
        number in 0..4_u64,
    ) {
        let (mut window, mut map) = build(&sets);
        prop_assert_eq!(flat(&window), map.clone());
        prop_assert_eq!(window.messages(), map.len() as u64);
        let pieces: Vec<Piece> = window.iter().collect();
        for pair in pieces.windows(2) {
            let touching = pair[0].span.end == pair[1].span.first;
            prop_assert!(pair[0].span.end <= pair[1].span.first);
            prop_assert!(!touching || pair[0].phase != pair[1].phase, "they are one piece");
        }
        check_counts(&window)?;
        let open = map.iter().find(|(_, phase)| !phase.done_with(number));
        prop_assert_eq!(window.lowest_unfinished(number), open.map(|(&at, _)| at));
        window.forget_below(below);
        map.retain(|&at, _| at >= below);
        prop_assert_eq!(flat(&window), map);
        check_counts(&window)?;
    }

    #[test]
    fn completed_is_what_is_done_from_the_position_on(
        sets in prop::collection::vec((spans(), phases()), 0..12),
        position in 0..35_u64,
        number in 0..4_u64,
        read in 0..35_u64,
    ) {
        let (window, map) = build(&sets);
        let completed = window.completed(position, number, read);
        for (at, phase) in map.range(position..) {
            let is_in = completed.iter().any(|span| span.contains(*at));
            prop_assert_eq!(is_in, phase.done_with(number), "{}", at);
        }
        for pair in completed.windows(2) {
            prop_assert!(pair[0].end < pair[1].first, "rising, not touching");
        }
        for span in completed {
            prop_assert!(position <= span.first);
            let unread = span.first.max(read)..span.end;
            prop_assert!(unread.into_iter().all(|at| map.contains_key(&at)), "{} is unknown", span);
        }
    }

    #[test]
    fn what_is_written_as_committed_ends_at_the_position(
        sets in prop::collection::vec((spans(), phases()), 0..12),
        gap in 0..4_u64,
    ) {
        let (window, map) = build(&sets);
        let end = map.last_key_value().map_or(0, |(&at, _)| at + 1 + gap);
        let position = window.lowest_unfinished(1).unwrap_or(end);
        let ours = |at: u64| map.get(&at) == Some(&Phase::Sent { number: 1 });
        let widened = window.widened(1, position);
        for (span, messages) in &widened {
            let counted = (span.first..span.end).filter(|&at| ours(at)).count() as u64;
            let held = (span.first..span.end).filter(|at| map.contains_key(at)).count() as u64;
            prop_assert_eq!(counted, *messages);
            prop_assert_eq!(held, *messages, "it holds no message of others");
            prop_assert!(span.end <= position || ours(span.end - 1));
        }
        let all: u64 = widened.iter().map(|(_, messages)| messages).sum();
        prop_assert_eq!(all, map.keys().filter(|&&at| ours(at)).count() as u64);
    }
}
