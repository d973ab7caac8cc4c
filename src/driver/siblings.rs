//! What the group has committed of a topic, for those of its partitions that have no commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_statemachine::worker::{Commit, Siblings};
use countersign_statemachine::{Beginning, FirstStarts, PartitionId, StartAt};
use futures::FutureExt;

use crate::commit_metadata::commit_of;
use crate::kafka::{KafkaError, TopicPartition, of_all};

use super::jobs::Finding;
use super::scout::Scout;
use super::{Driver, Identified};

/// The topics of partitions that are taken up together. Each is asked for once.
pub(super) struct Topics {
    start: StartAt,
    /// The numbers of the partitions that are taken up.
    taken: BTreeMap<Arc<str>, Vec<u32>>,
    known: BTreeMap<Arc<str>, Known>,
}

enum Known {
    /// No partition has a commit; where each ends, if that is to be told.
    Untouched(Option<Arc<[u64]>>),
    /// Some have, and say so much of the others.
    Touched(FirstStarts),
}

impl Topics {
    pub(super) fn new<'a>(start: StartAt, taken: impl Iterator<Item = &'a TopicPartition>) -> Self {
        let mut topics = Self { start, taken: BTreeMap::new(), known: BTreeMap::new() };
        for TopicPartition { topic, partition } in taken {
            topics.taken.entry(Arc::clone(topic)).or_default().push(*partition);
        }
        topics
    }

    /// What is committed of the other partitions of a topic. The one that is asked for has no
    /// commit, and nobody but its owner makes one.
    pub(super) async fn siblings(
        &mut self,
        scout: &Scout,
        of: &Identified,
    ) -> Result<Siblings, KafkaError> {
        let TopicPartition { topic, partition } = &of.partition;
        if of.siblings < 2 {
            return Ok(Siblings::None(None));
        }
        if !self.known.contains_key(topic) {
            let known = ask(scout, of, self.start).await?;
            self.known.insert(Arc::clone(topic), known);
        }
        let taken = self.taken.get(topic).map_or(&[][..], Vec::as_slice);
        let beginning = |ends: &Arc<[u64]>| Beginning {
            ends: Arc::clone(ends),
            number: *partition,
            nth: taken.iter().position(|number| number == partition).unwrap_or(0),
            of: taken.len(),
        };
        Ok(match self.known.get(topic) {
            Some(Known::Touched(starts)) => Siblings::Some(starts.recorded(*partition)),
            Some(Known::Untouched(ends)) => Siblings::None(ends.as_ref().map(beginning)),
            None => Siblings::None(None),
        })
    }
}

async fn ask(scout: &Scout, of: &Identified, start: StartAt) -> Result<Known, KafkaError> {
    let topic = &of.partition.topic;
    let all: Vec<_> = TopicPartition::all_of(Arc::clone(topic), of.siblings).collect();
    let committed = scout.committed_now(all.clone()).await?;
    let commits = (0..).zip(committed).filter_map(|(number, it)| Some((number, commit_of(it?))));
    let commits: Vec<(u32, Commit)> = commits.collect();
    if !commits.is_empty() {
        let commits = commits.iter().map(|(number, commit)| (*number, commit));
        return Ok(Known::Touched(FirstStarts::read(commits, of.topic_id)));
    }
    Ok(Known::Untouched(match start {
        StartAt::Earliest => None,
        StartAt::Latest => {
            let logs = of_all(scout.log_ranges(all).await)?;
            Some(logs.into_iter().map(|log| log.end).collect())
        }
    }))
}

impl Driver {
    pub(super) fn ask_uncommitted(&mut self, ids: &[PartitionId]) {
        let known: Vec<_> = ids.iter().filter_map(|id| self.known.get(id).cloned()).collect();
        let scout = self.scout.clone();
        let job = async move { Finding::Uncommitted(uncommitted(&scout, &known).await) };
        self.jobs.push(job.boxed());
    }
}

/// The numbers of the partitions without a commit, of the topic of each.
async fn uncommitted(
    scout: &Scout,
    known: &[Identified],
) -> Result<Vec<(PartitionId, Vec<u32>)>, KafkaError> {
    let mut topics: BTreeMap<&Arc<str>, Vec<u32>> = BTreeMap::new();
    let mut told = Vec::with_capacity(known.len());
    for of in known {
        let topic = &of.partition.topic;
        if !topics.contains_key(topic) {
            let all = TopicPartition::all_of(Arc::clone(topic), of.siblings).collect();
            let committed = scout.committed_now(all).await?;
            let without = (0..).zip(committed).filter(|(_, commit)| commit.is_none());
            topics.insert(topic, without.map(|(number, _)| number).collect());
        }
        told.push((of.id, topics.get(topic).cloned().unwrap_or_default()));
    }
    Ok(told)
}
