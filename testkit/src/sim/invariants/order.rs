//! The outputs of messages that wait for each other stand in each output partition in the order of
//! the input.

use std::collections::BTreeMap;

use countersign::Order;
use countersign::kafka::TopicPartition;

use crate::sim::evidence::Evidence;

/// What waits for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane<'a> {
    Only,
    Key(Option<&'a [u8]>),
    Message(u64),
}

fn lanes(evidence: &Evidence) -> BTreeMap<(&TopicPartition, u64), Lane<'_>> {
    let mut lanes = BTreeMap::new();
    for (partition, inputs) in &evidence.inputs {
        for input in inputs {
            let lane = match evidence.world.order {
                Order::Partition => Lane::Only,
                Order::Key => Lane::Key(input.key.as_deref()),
                Order::None => Lane::Message(input.offset),
            };
            lanes.insert((partition, input.offset), lane);
        }
    }
    lanes
}

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let lanes = lanes(evidence);
    let mut last: BTreeMap<(&TopicPartition, Lane<'_>, &TopicPartition), _> = BTreeMap::new();
    for seen in &evidence.outputs {
        let Some(provenance) = &seen.provenance else { continue };
        let this = (provenance.offset, provenance.n);
        let lane = lanes.get(&(&provenance.partition, provenance.offset));
        let lane = lane.copied().unwrap_or(Lane::Only);
        let former = last.insert((&provenance.partition, lane, &seen.at), this);
        if let Some((offset, n)) = former.filter(|former| *former >= this) {
            return Err(format!(
                "{}@{}: the output {}/{} of {}@{} follows {n} of offset {offset}",
                seen.at,
                seen.offset,
                provenance.n,
                provenance.of,
                provenance.partition,
                provenance.offset,
            ));
        }
    }
    Ok(())
}
