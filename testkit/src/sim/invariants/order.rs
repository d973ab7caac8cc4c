//! The outputs of an input partition stand in each output partition in the order of the input.

use std::collections::BTreeMap;

use countersign::kafka::TopicPartition;

use crate::sim::evidence::Evidence;

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    let mut last: BTreeMap<(&TopicPartition, &TopicPartition), (u64, u32)> = BTreeMap::new();
    for seen in &evidence.outputs {
        let Some(provenance) = &seen.provenance else { continue };
        let this = (provenance.offset, provenance.n);
        let former = last.insert((&provenance.partition, &seen.at), this);
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
