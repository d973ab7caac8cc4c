//! What the group has: members and offsets.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::super::event::{elements, offset_of, partition_of};
use super::super::{Event, Failure, check, read, text};
use super::{ask, no_memory};
use crate::kafka::{Member, Members, TopicPartition};

/// Describes the members of a group.
pub(in super::super::super) fn members(
    client: &NativeClient,
    group: &CStr,
    timeout: Duration,
) -> Result<Members, Failure> {
    let of = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    let mut names: [*const c_char; 1] = [group.as_ptr()];
    let answer = ask(client, of, timeout, |options, queue| {
        // SAFETY: all are alive, and the name is copied.
        unsafe {
            let names = names.as_mut_ptr();
            rd::rd_kafka_DescribeConsumerGroups(client.ptr(), names, 1, options, queue);
        }
    })?;
    let mut len = 0;
    // SAFETY: the event is alive, is of this kind, and owns the descriptions.
    unsafe {
        let result = rd::rd_kafka_event_DescribeConsumerGroups_result(answer.0.as_ptr());
        let groups = rd::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut len);
        read_members(only(groups, len)?)
    }
}

/// # Safety
/// `answers` is null or points to `len` answers that are alive.
unsafe fn only<T>(answers: *mut *const T, len: usize) -> Result<*const T, Failure> {
    if answers.is_null() || len != 1 {
        return Err(Failure::of(Code::BadMessage, format!("{len} answers to one question")));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { *answers })
}

/// # Safety
/// `group` is alive.
unsafe fn read_members(
    group: *const rd::rd_kafka_ConsumerGroupDescription_t,
) -> Result<Members, Failure> {
    // SAFETY: the caller's promise; members and lists belong to the group and are copied.
    unsafe {
        let error = read(rd::rd_kafka_ConsumerGroupDescription_error(group));
        if let Some(failure) = error.filter(|failure| failure.code != Code::NoError) {
            return Err(failure);
        }
        let state = rd::rd_kafka_ConsumerGroupDescription_state(group);
        let (mut all, mut assigned) = (Vec::new(), BTreeMap::new());
        for index in 0..rd::rd_kafka_ConsumerGroupDescription_member_count(group) {
            let member = rd::rd_kafka_ConsumerGroupDescription_member(group, index);
            let instance = text(rd::rd_kafka_MemberDescription_group_instance_id(member));
            let told = Member {
                id: text(rd::rd_kafka_MemberDescription_consumer_id(member)),
                instance: Some(instance).filter(|instance| !instance.is_empty()),
                host: text(rd::rd_kafka_MemberDescription_host(member)),
            };
            let assignment = rd::rd_kafka_MemberDescription_assignment(member);
            if !assignment.is_null()
                && let Some(list) = rd::rd_kafka_MemberAssignment_partitions(assignment).as_ref()
            {
                let partitions = elements(list).iter().map(|element| partition_of(element));
                assigned.extend(partitions.map(|partition| (partition, told.clone())));
            }
            all.push(told);
        }
        let stable = rd::rd_kafka_consumer_group_state_t::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE;
        Ok(Members { is_stable: state == stable, all, assigned })
    }
}

/// What is asked about a group's offsets, freed in the end.
struct Offsets(NonNull<rd::rd_kafka_ListConsumerGroupOffsets_t>);

impl Offsets {
    fn new(group: &CStr, list: &TopicPartitionList) -> Option<Self> {
        // SAFETY: name and list are alive and are copied; what is returned is ours.
        NonNull::new(unsafe {
            rd::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), list.ptr())
        })
        .map(Self)
    }
}

impl Drop for Offsets {
    fn drop(&mut self) {
        // SAFETY: it is ours and is not used again.
        unsafe { rd::rd_kafka_ListConsumerGroupOffsets_destroy(self.0.as_ptr()) }
    }
}

/// A committed offset with its metadata; an offset below zero means none.
type Commit = (i64, Vec<u8>);

/// What was told of each partition.
type Commits = Vec<(TopicPartition, Result<Commit, Failure>)>;

/// What is committed of the partitions of `list`, in any order. What is only pending does not count
/// and is not waited for.
pub(in super::super::super) fn committed_now(
    client: &NativeClient,
    group: &CStr,
    list: &TopicPartitionList,
    timeout: Duration,
) -> Result<Commits, Failure> {
    let of = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    let offsets = Offsets::new(group, list).ok_or_else(no_memory)?;
    let mut asked = [offsets.0.as_ptr()];
    let answer = ask(client, of, timeout, |options, queue| {
        // SAFETY: all are alive, and what is asked is copied.
        unsafe {
            let asked = asked.as_mut_ptr();
            rd::rd_kafka_ListConsumerGroupOffsets(client.ptr(), asked, 1, options, queue);
        }
    })?;
    read_offsets(&answer)
}

fn read_offsets(answer: &Event) -> Result<Commits, Failure> {
    let mut len = 0;
    // SAFETY: the event is alive, is of this kind, and owns group, error and list, from which the
    // metadata are copied.
    unsafe {
        let result = rd::rd_kafka_event_ListConsumerGroupOffsets_result(answer.0.as_ptr());
        let groups = rd::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut len);
        let group = only(groups, len)?;
        let error = read(rd::rd_kafka_group_result_error(group));
        if let Some(failure) = error.filter(|failure| failure.code != Code::NoError) {
            return Err(failure);
        }
        let list = rd::rd_kafka_group_result_partitions(group);
        let elements = list.as_ref().map_or(&[][..], |list| elements(list));
        let told =
            |element| (partition_of(element), check(element.err).map(|()| offset_of(element)));
        Ok(elements.iter().map(told).collect())
    }
}
