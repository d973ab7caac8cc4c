//! Nothing is visible but the outputs of the visible inputs, each once, with its true provenance.

use std::collections::{BTreeMap, BTreeSet};

use countersign::kafka::TopicPartition;

use crate::sim::evidence::{Evidence, Seen};

type Origin<'a> = (&'a TopicPartition, u64, u32, u32);

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let mut wanted: BTreeMap<String, Origin<'_>> = BTreeMap::new();
    for (partition, inputs) in &evidence.inputs {
        for input in inputs {
            let outputs = evidence.wanted(partition, input);
            let of = u32::try_from(outputs.len()).unwrap_or(u32::MAX);
            for (n, output) in (1..).zip(outputs) {
                wanted.insert(output.value, (partition, input.offset, n, of));
            }
        }
    }
    let mut met = BTreeSet::new();
    for seen in &evidence.outputs {
        let place = || format!("{}@{}: {}", seen.at, seen.offset, seen.value);
        let Some(origin) = wanted.get(&seen.value) else {
            return Err(format!("{} comes from nothing", place()));
        };
        if !met.insert(&seen.value) {
            return Err(format!("{} is there twice", place()));
        }
        if !is_true(seen, *origin) {
            return Err(format!("{} says it is from {:?}", place(), seen.provenance));
        }
    }
    Ok(())
}

fn is_true(seen: &Seen, (partition, offset, n, of): Origin<'_>) -> bool {
    seen.provenance.as_ref().is_some_and(|provenance| {
        provenance.partition == *partition
            && provenance.offset == offset
            && provenance.n == n
            && provenance.of == of
    })
}
