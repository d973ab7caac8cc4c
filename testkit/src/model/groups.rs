//! The group coordinator: members, generations, rebalances, static membership.
//!
//! Members heart-beat and join by themselves, as librdkafka's own thread does; only an answer to
//! `Assign`, `Revoke` or `Lost` that is still awaited from the caller holds a member back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign::kafka::{self, Members, TopicPartition};
use tokio::time::Instant;

use super::assignor::{self, Subscription};
use super::cluster::State;
use super::member::{Member, Offer, Stage};
use super::offsets::Offsets;
use super::request::{Code, GroupMetadata};

#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) generation: i32,
    pub(super) memberships: BTreeMap<Arc<str>, Membership>,
    /// Until when a rebalance waits for its members.
    pub(super) rebalance_deadline: Option<Instant>,
    pub(super) offsets: Offsets,
}

/// The coordinator's view of a member.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) handle: u64,
    instance: Option<Arc<str>>,
    assigned: BTreeSet<TopicPartition>,
    joined: bool,
    /// Set while the member does not heart-beat.
    pub(super) session_deadline: Option<Instant>,
}

impl Group {
    pub(super) fn members(&self) -> Members {
        let member = |(id, membership): (&Arc<str>, &Membership)| kafka::Member {
            id: id.to_string(),
            instance: membership.instance.as_deref().map(str::to_owned),
            host: "model".to_owned(),
        };
        let assigned = self.memberships.iter().flat_map(|of| {
            of.1.assigned.iter().map(move |partition| (partition.clone(), member(of)))
        });
        Members {
            is_stable: self.rebalance_deadline.is_none(),
            all: self.memberships.iter().map(member).collect(),
            assigned: assigned.collect(),
        }
    }
}

impl State {
    pub(super) fn group(&mut self, group: &Arc<str>) -> &mut Group {
        self.groups.entry(group.clone()).or_default()
    }

    pub(super) fn validate_member(&self, metadata: &GroupMetadata) -> Result<(), Code> {
        let group = self.groups.get(&metadata.group).ok_or(Code::UnknownMemberId)?;
        let is_taken_over = group.memberships.iter().any(|(id, membership)| {
            metadata.instance.is_some()
                && membership.instance == metadata.instance
                && *id != metadata.member_id
        });
        if is_taken_over {
            return Err(Code::FencedInstanceId);
        }
        if !group.memberships.contains_key(&metadata.member_id) {
            return Err(Code::UnknownMemberId);
        }
        if group.generation != metadata.generation {
            return Err(Code::IllegalGeneration);
        }
        Ok(())
    }

    /// A consumer joins, or joins again under a new member id.
    pub(super) fn join(&mut self, handle: u64) {
        let number = self.next_number();
        let Some(member) = self.members.get_mut(&handle) else { return };
        let member_id: Arc<str> = Arc::from(format!("member-{handle:06}-{number:06}"));
        member.member_id = Some(member_id.clone());
        let name = member.group.clone();
        let instance = member.instance.clone();
        let group = self.groups.entry(name.clone()).or_default();
        let former = group
            .memberships
            .iter()
            .find(|(_, membership)| instance.is_some() && membership.instance == instance)
            .map(|(id, _)| id.clone());
        let former = former.and_then(|id| group.memberships.remove(&id));
        let membership = Membership {
            handle,
            instance,
            assigned: BTreeSet::new(),
            joined: false,
            session_deadline: None,
        };
        match former {
            Some(former) if group.rebalance_deadline.is_none() => {
                // Nothing is moved: the new member takes over in the same generation. A rebalance
                // that the former one owed is forgotten, and what it gave back is nobody's.
                let given: Vec<_> = former.assigned.iter().cloned().collect();
                member.generation = Some(group.generation);
                member.offer(Offer::Assign(given));
                let membership =
                    Membership { assigned: former.assigned, joined: true, ..membership };
                group.memberships.insert(member_id, membership);
            }
            Some(_) | None => {
                group.memberships.insert(member_id, membership);
                self.start_rebalance(&name);
            }
        }
        self.changed();
    }

    /// Removes a member, which finds out by itself later.
    pub(super) fn remove_membership(&mut self, group: &Arc<str>, member_id: &Arc<str>) {
        if self.group(group).memberships.remove(member_id).is_some() {
            self.start_rebalance(group);
        }
    }

    pub(super) fn start_rebalance(&mut self, name: &Arc<str>) {
        self.changed();
        let now = self.now;
        let Some(group) = self.groups.get_mut(name) else { return };
        if group.rebalance_deadline.is_some() {
            return;
        }
        for membership in group.memberships.values_mut() {
            membership.joined = false;
        }
        let longest = group
            .memberships
            .values()
            .filter_map(|membership| self.members.get(&membership.handle))
            .map(|member| member.max_poll_interval)
            .max();
        group.rebalance_deadline = longest.map(|longest| now + longest);
    }

    /// Members that have not joined in time are removed; the rebalance then ends by itself.
    pub(super) fn end_rebalance_wait(&mut self, name: &Arc<str>) {
        self.group(name).memberships.retain(|_, membership| membership.joined);
        self.changed();
    }

    /// Lets the members' own threads do what they can do without the caller.
    pub(super) fn settle(&mut self) {
        let names: Vec<_> = self.groups.keys().cloned().collect();
        for name in names {
            while self.settle_group(&name) {}
        }
    }

    fn settle_group(&mut self, name: &Arc<str>) -> bool {
        let handles: Vec<_> = self.heart_beating(name);
        let wants = |state: &Self, handle: &u64| {
            state.members.get(handle).is_some_and(|m| m.rejoin && m.is_settled())
        };
        let rejoins: Vec<_> =
            handles.iter().copied().filter(|handle| wants(self, handle)).collect();
        for handle in &rejoins {
            if let Some(member) = self.members.get_mut(handle) {
                member.rejoin = false;
            }
            self.start_rebalance(name);
        }
        if self.group(name).rebalance_deadline.is_none() {
            return false;
        }
        for handle in handles {
            self.rejoin(name, handle);
        }
        let group = self.group(name);
        let all = group.memberships.values().all(|membership| membership.joined);
        if all {
            self.complete_rebalance(name);
        }
        all
    }

    fn heart_beating(&mut self, name: &Arc<str>) -> Vec<u64> {
        let group = self.group(name);
        group
            .memberships
            .values()
            .filter(|membership| membership.session_deadline.is_none())
            .map(|membership| membership.handle)
            .collect()
    }

    fn rejoin(&mut self, name: &Arc<str>, handle: u64) {
        let Some(member) = self.members.get_mut(&handle) else { return };
        if !member.is_settled() {
            return;
        }
        if !member.assignor.is_cooperative() && !member.owned.is_empty() {
            member.offer(Offer::Revoke(member.owned.keys().cloned().collect()));
            self.changed();
            return;
        }
        let member_id = member.member_id.clone();
        let group = self.group(name);
        if let Some(membership) = member_id.and_then(|id| group.memberships.get_mut(&id)) {
            membership.joined = true;
        }
    }

    fn complete_rebalance(&mut self, name: &Arc<str>) {
        let target = self.target(name);
        let group = self.groups.entry(name.clone()).or_default();
        group.rebalance_deadline = None;
        group.generation += 1;
        let owned_by = |member: &Member| member.owned.keys().cloned().collect::<BTreeSet<_>>();
        let owned: BTreeMap<_, _> = group
            .memberships
            .iter()
            .filter_map(|(id, m)| Some((id.clone(), owned_by(self.members.get(&m.handle)?))))
            .collect();
        for (id, membership) in &mut group.memberships {
            let Some(member) = self.members.get_mut(&membership.handle) else { continue };
            let mine = owned.get(id).cloned().unwrap_or_default();
            let wanted = target.get(id).cloned().unwrap_or_default();
            let free = |partition: &&TopicPartition| {
                !owned.iter().any(|(other, owned)| other != id && owned.contains(*partition))
            };
            let revoked: Vec<_> = mine.difference(&wanted).cloned().collect();
            let added: Vec<_> = wanted.difference(&mine).filter(free).cloned().collect();
            membership.assigned = mine.intersection(&wanted).chain(&added).cloned().collect();
            member.generation = Some(group.generation);
            // What is revoked goes to its next owner in the rebalance that this one asks for.
            member.rejoin |= !revoked.is_empty();
            member.offer(Offer::Revoke(revoked));
            member.offer(Offer::Assign(added));
        }
        self.changed();
    }

    fn target(&mut self, name: &Arc<str>) -> assignor::Assignment {
        let handles: Vec<_> = self
            .group(name)
            .memberships
            .iter()
            .map(|(id, membership)| (id.clone(), membership.handle))
            .collect();
        let members: Vec<_> = handles
            .iter()
            .filter_map(|(id, handle)| Some((id.clone(), self.members.get(handle)?)))
            .collect();
        let kind = members.first().map(|(_, member)| member.assignor).unwrap_or_default();
        let subscriptions: BTreeMap<_, _> = members
            .into_iter()
            .map(|(id, member)| {
                let owned = member.owned.keys().cloned().collect();
                (id, Subscription { topics: member.topics.clone(), owned })
            })
            .collect();
        let wanted: BTreeSet<_> =
            subscriptions.values().flat_map(|member| &member.topics).collect();
        let topics = self
            .topics
            .iter()
            .filter(|(topic, _)| wanted.contains(topic))
            .map(|(topic, state)| (topic.clone(), state.partition_count()))
            .collect();
        assignor::assign(kind, &topics, &subscriptions)
    }

    /// Leaves the group. One that unsubscribes does, static or not.
    pub(super) fn end_membership(&mut self, handle: u64) {
        let Some(member) = self.members.get(&handle) else { return };
        let (group, member_id) = (member.group.clone(), member.member_id.clone());
        if let Some(member_id) = member_id {
            self.remove_membership(&group, &member_id);
        }
    }

    /// Starts the session's end of every member of a client that stopped heart-beating.
    pub(super) fn stop_heart_beats(&mut self, handle: u64) {
        let now = self.now;
        let Some(member) = self.members.get(&handle) else { return };
        let timeout = member.session_timeout;
        let (group, id) = (member.group.clone(), member.member_id.clone());
        let group = self.group(&group);
        if let Some(membership) = id.and_then(|id| group.memberships.get_mut(&id)) {
            membership.session_deadline.get_or_insert(now + timeout);
        }
        self.changed();
    }

    pub(super) fn restart_heart_beats(&mut self, handle: u64) {
        let Some(member) = self.members.get(&handle) else { return };
        if member.stage == Stage::Left {
            return;
        }
        let (group, id) = (member.group.clone(), member.member_id.clone());
        let group = self.group(&group);
        if let Some(membership) = id.and_then(|id| group.memberships.get_mut(&id)) {
            membership.session_deadline = None;
        }
        self.changed();
    }

    /// Whether a newer member has taken the static member's place.
    pub(super) fn is_fenced_instance(&self, member: &Member) -> bool {
        let Some(group) = self.groups.get(&member.group) else { return false };
        member.instance.is_some()
            && group.memberships.iter().any(|(id, membership)| {
                membership.instance == member.instance && Some(id) != member.member_id.as_ref()
            })
    }
}
