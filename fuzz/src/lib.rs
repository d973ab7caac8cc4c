//! Inputs for the targets, bounded so that they are small enough to meet each other.

use arbitrary::{Arbitrary, Result, Unstructured};
use countersign_statemachine::{Event, State};

#[path = "../../statemachine/tests/every/mod.rs"]
mod every;

/// One of the first offsets.
#[derive(Debug, Clone, Copy)]
pub struct Offset(pub u64);

impl Offset {
    const MAX: u64 = 63;
}

impl<'a> Arbitrary<'a> for Offset {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        input.int_in_range(0..=Self::MAX).map(Self)
    }
}

/// How many offsets a span covers.
#[derive(Debug, Clone, Copy)]
pub struct Len(pub u64);

impl Len {
    const MAX: u64 = 16;
}

impl<'a> Arbitrary<'a> for Len {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        input.int_in_range(1..=Self::MAX).map(Self)
    }
}

/// Any event there is.
#[derive(Debug, Clone, Copy)]
pub struct AnyEvent(pub Event);

impl<'a> Arbitrary<'a> for AnyEvent {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        input.choose(&every::events()).copied().map(Self)
    }
}

/// Any state there is.
#[derive(Debug, Clone, Copy)]
pub struct AnyState(pub State);

impl<'a> Arbitrary<'a> for AnyState {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        input.choose(&every::states()).copied().map(Self)
    }
}
