//! Goal: a span is never empty, and its operations agree with the offsets it holds.

use countersign_statemachine::Span;
use proptest::prelude::*;

fn offsets(span: Span) -> Vec<u64> {
    (span.first..span.end).collect()
}

proptest! {
    #[test]
    fn operations_agree_with_the_offsets(
        a in 0_u64..20, b in 0_u64..20, c in 0_u64..20, d in 0_u64..20,
    ) {
        let made = Span::new(a, b);
        prop_assert_eq!(made.is_some(), a < b);
        let (Some(one), Some(two)) = (made, Span::new(c, d)) else { return Ok(()) };
        prop_assert_eq!(one.len(), offsets(one).len() as u64);
        prop_assert!(!one.is_empty());
        for offset in 0..21 {
            prop_assert_eq!(one.contains(offset), offsets(one).contains(&offset));
        }
        let both: Vec<u64> = offsets(one).into_iter().filter(|&o| two.contains(o)).collect();
        prop_assert_eq!(one.intersect(two).map(offsets).unwrap_or_default(), both);
    }
}

#[test]
fn it_is_shown_as_people_count() {
    assert_eq!(Span::one(7).to_string(), "7");
    assert_eq!(Span { first: 7, end: 10 }.to_string(), "7..=9");
    assert_eq!(format!("{:?}", Span { first: 7, end: 10 }), "7..=9");
}

/// What is empty or backwards would make every length underflow.
#[test]
fn a_damaged_span_is_refused() {
    let read = serde_json::from_str::<Span>;
    assert_eq!(read(r#"{"first":7,"end":10}"#).unwrap(), Span { first: 7, end: 10 });
    assert_eq!(serde_json::to_string(&Span::one(7)).unwrap(), r#"{"first":7,"end":8}"#);
    for damaged in [r#"{"first":7,"end":7}"#, r#"{"first":7,"end":0}"#] {
        let refused = read(damaged).unwrap_err().to_string();
        assert!(refused.contains("ends at or before its start"), "{refused}");
    }
}
