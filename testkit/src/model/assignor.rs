//! Which member of a group gets which partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign::kafka::TopicPartition;

/// A group's way of giving out partitions, in librdkafka's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Assignor {
    /// Eager; consecutive partitions, topic by topic.
    Range,
    /// Eager; in turn.
    RoundRobin,
    /// Cooperative; as balanced as possible, then as little moved as possible.
    #[default]
    CooperativeSticky,
}

impl Assignor {
    /// Whether members keep their partitions during a rebalance.
    pub(super) fn is_cooperative(self) -> bool {
        match self {
            Self::Range | Self::RoundRobin => false,
            Self::CooperativeSticky => true,
        }
    }
}

/// What a member says when it joins.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) topics: Vec<Arc<str>>,
    pub(super) owned: BTreeSet<TopicPartition>,
}

pub(super) type Assignment = BTreeMap<Arc<str>, BTreeSet<TopicPartition>>;

/// Gives every partition of `topics` (name and partition count) that someone wants to one member.
pub(super) fn assign(
    assignor: Assignor,
    topics: &BTreeMap<Arc<str>, u32>,
    members: &BTreeMap<Arc<str>, Subscription>,
) -> Assignment {
    match assignor {
        Assignor::Range => range(topics, members),
        Assignor::RoundRobin => balance(topics, members, empty(members)),
        Assignor::CooperativeSticky => balance(topics, members, kept(topics, members)),
    }
}

fn empty(members: &BTreeMap<Arc<str>, Subscription>) -> Assignment {
    members.keys().map(|member| (member.clone(), BTreeSet::new())).collect()
}

fn range(
    topics: &BTreeMap<Arc<str>, u32>,
    members: &BTreeMap<Arc<str>, Subscription>,
) -> Assignment {
    let mut assignment = empty(members);
    for (topic, partitions) in topics {
        let takers: Vec<_> =
            members.iter().filter(|(_, member)| member.topics.contains(topic)).collect();
        let count = u32::try_from(takers.len()).unwrap_or(u32::MAX).max(1);
        let mut next = 0;
        for (place, (member, _)) in (0_u32..).zip(takers) {
            let share = partitions / count + u32::from(place < partitions % count);
            let given = (next..next + share).map(|p| TopicPartition::new(topic.clone(), p));
            assignment.entry(member.clone()).or_default().extend(given);
            next += share;
        }
    }
    assignment
}

/// What each member may keep: its even share, the larger shares to those that have most.
fn kept(
    topics: &BTreeMap<Arc<str>, u32>,
    members: &BTreeMap<Arc<str>, Subscription>,
) -> Assignment {
    let total = topics.values().map(|count| *count as usize).sum::<usize>();
    let share = total / members.len().max(1);
    let mut larger = total % members.len().max(1);
    let mut by_owned: Vec<_> = members.iter().collect();
    by_owned.sort_by_key(|(_, member)| std::cmp::Reverse(member.owned.len()));
    let mut assignment = empty(members);
    for (id, member) in by_owned {
        let mut quota = share;
        if member.owned.len() > share && larger > 0 {
            larger -= 1;
            quota += 1;
        }
        let exists = |p: &&TopicPartition| {
            topics.get(&p.topic).is_some_and(|count| p.partition < *count)
                && member.topics.contains(&p.topic)
        };
        let keeps = member.owned.iter().filter(exists).take(quota).cloned();
        assignment.entry(id.clone()).or_default().extend(keeps);
    }
    assignment
}

fn balance(
    topics: &BTreeMap<Arc<str>, u32>,
    members: &BTreeMap<Arc<str>, Subscription>,
    mut assignment: Assignment,
) -> Assignment {
    let taken: BTreeSet<TopicPartition> = assignment.values().flatten().cloned().collect();
    let all = topics
        .iter()
        .flat_map(|(topic, partitions)| TopicPartition::all_of(topic.clone(), *partitions));
    for partition in all.filter(|partition| !taken.contains(partition)) {
        let least = members
            .iter()
            .filter(|(_, member)| member.topics.contains(&partition.topic))
            .map(|(id, _)| id)
            .min_by_key(|id| assignment.get(*id).map_or(0, BTreeSet::len));
        if let Some(id) = least {
            assignment.entry(id.clone()).or_default().insert(partition);
        }
    }
    assignment
}
