//! Membership and assignment.

use std::ffi::CStr;
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::client::NativeClient;

use super::{Failure, check, millis, take, text};

/// The member's id and generation at one moment.
#[derive(Debug)]
pub(in super::super) struct GroupMetadata(NonNull<rd::rd_kafka_consumer_group_metadata_t>);

impl GroupMetadata {
    /// Asks the consumer; a round trip to its main thread.
    pub(in super::super) fn of(client: &NativeClient) -> Option<Self> {
        // SAFETY: the client is alive; the metadata that is returned is ours.
        NonNull::new(unsafe { rd::rd_kafka_consumer_group_metadata(client.ptr()) }).map(Self)
    }

    /// That of somebody who is no member: without a generation, and with an id that no member has.
    pub(in super::super) fn outside(group: &CStr) -> Option<Self> {
        let (generation, id) = (-1, c"countersign-operator");
        // SAFETY: the names are alive and are copied; the metadata that is returned is ours.
        NonNull::new(unsafe {
            rd::rd_kafka_consumer_group_metadata_new_with_genid(
                group.as_ptr(),
                generation,
                id.as_ptr(),
                ptr::null(),
            )
        })
        .map(Self)
    }

    /// The generation or member epoch; negative if there is none.
    pub(in super::super) fn generation(&self) -> i32 {
        // SAFETY: the metadata is alive.
        unsafe { rd::rd_kafka_consumer_group_metadata_generation_id(self.0.as_ptr()) }
    }

    /// The member's id; empty if there is none.
    pub(in super::super) fn member_id(&self) -> String {
        // SAFETY: the metadata is alive and owns the string, which is copied.
        unsafe { text(rd::rd_kafka_consumer_group_metadata_member_id(self.0.as_ptr())) }
    }

    pub(super) fn as_ptr(&self) -> *const rd::rd_kafka_consumer_group_metadata_t {
        self.0.as_ptr()
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: the metadata is ours and is not used again.
        unsafe { rd::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

/// Whether the partitions of the rebalance at hand may already have another owner.
pub(in super::super) fn assignment_lost(client: &NativeClient) -> bool {
    // SAFETY: the client is alive.
    unsafe { rd::rd_kafka_assignment_lost(client.ptr()) != 0 }
}

/// Replaces the assignment.
pub(in super::super) fn assign(
    client: &NativeClient,
    list: &TopicPartitionList,
) -> Result<(), Failure> {
    // SAFETY: client and list are alive; the list is copied.
    check(unsafe { rd::rd_kafka_assign(client.ptr(), list.ptr()) })
}

/// Ends the assignment.
pub(in super::super) fn unassign(client: &NativeClient) -> Result<(), Failure> {
    // SAFETY: the client is alive; a null list means none.
    check(unsafe { rd::rd_kafka_assign(client.ptr(), ptr::null()) })
}

/// Adds to the assignment.
pub(in super::super) fn incremental_assign(
    client: &NativeClient,
    list: &TopicPartitionList,
) -> Result<(), Failure> {
    // SAFETY: client and list are alive; the list is copied, and the error is handed over.
    unsafe { take(rd::rd_kafka_incremental_assign(client.ptr(), list.ptr())) }
}

/// Takes from the assignment.
pub(in super::super) fn incremental_unassign(
    client: &NativeClient,
    list: &TopicPartitionList,
) -> Result<(), Failure> {
    // SAFETY: client and list are alive; the list is copied, and the error is handed over.
    unsafe { take(rd::rd_kafka_incremental_unassign(client.ptr(), list.ptr())) }
}

/// Stops fetching.
pub(in super::super) fn pause(
    client: &NativeClient,
    list: &TopicPartitionList,
) -> Result<(), Failure> {
    // SAFETY: client and list are alive; the call writes one error per element.
    check(unsafe { rd::rd_kafka_pause_partitions(client.ptr(), list.ptr()) })
}

/// Goes on fetching.
pub(in super::super) fn resume(
    client: &NativeClient,
    list: &TopicPartitionList,
) -> Result<(), Failure> {
    // SAFETY: client and list are alive; the call writes one error per element.
    check(unsafe { rd::rd_kafka_resume_partitions(client.ptr(), list.ptr()) })
}

/// Goes on fetching at the offsets of the list; waits until that has begun, but not for longer than
/// is said.
pub(in super::super) fn seek(
    client: &NativeClient,
    list: &TopicPartitionList,
    wait: Duration,
) -> Result<(), Failure> {
    // SAFETY: client and list are alive; the call writes one error per element, and the error is
    // handed over.
    unsafe { take(rd::rd_kafka_seek_partitions(client.ptr(), list.ptr(), millis(wait))) }
}

/// Starts leaving the group.
pub(in super::super) fn unsubscribe(client: &NativeClient) -> Result<(), Failure> {
    // SAFETY: the client is alive.
    check(unsafe { rd::rd_kafka_unsubscribe(client.ptr()) })
}
