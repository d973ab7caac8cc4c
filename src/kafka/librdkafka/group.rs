//! The handle by which producers ask for the group metadata.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::context::Context;
use super::raw::{GroupMetadata, Queues};
use crate::kafka::Group;

/// A consumer's client. The queues come first, since they must be dropped first.
pub(super) struct Client {
    pub(super) queues: Queues,
    pub(super) base: BaseConsumer<Context>,
}

/// What a member may say of itself while a rebalance waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gate {
    /// The current metadata.
    Open,
    /// A `Revoke` waits: only the metadata of the moment when it came.
    ///
    /// The classic protocol's `rd_kafka_cgrp_metadata_update_check` may rejoin without waiting for
    /// the answer if topics changed meanwhile. The generation after that one says nothing about the
    /// partitions that are being given up, and the broker does not check them.
    Only(Option<(i32, String)>),
    /// A `Lost` waits: none.
    Shut,
}

/// Shared by the consumer, its wakers and its group handles; empty once the consumer is dropped.
pub(super) struct Shared {
    pub(super) client: RwLock<Option<Arc<Client>>>,
    pub(super) gate: RwLock<Gate>,
}

impl Shared {
    pub(super) fn set_gate(&self, gate: Gate) {
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = gate;
    }

    /// Makes a waiting poll return. The lock is held, so that the client cannot end meanwhile and
    /// its last owner is never a waker.
    pub(super) fn wake(&self) {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = client.as_ref() {
            client.queues.wake();
        }
    }
}

/// Tells a consumer's group metadata to producers. It does not keep the consumer alive.
#[derive(Clone)]
pub struct LibrdGroup(pub(super) Arc<Shared>);

impl fmt::Debug for LibrdGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibrdGroup").finish_non_exhaustive()
    }
}

impl LibrdGroup {
    /// The metadata of a real member, for use at once and never again.
    ///
    /// It may be taken on a producer's thread: ownership changes only by calls of the poll thread,
    /// which makes them after the transaction's end.
    pub(super) fn metadata(&self) -> Option<GroupMetadata> {
        let gate = self.0.gate.read().unwrap_or_else(PoisonError::into_inner);
        // Held during the call, so that the client's last owner is never a producer.
        let client = self.0.client.read().unwrap_or_else(PoisonError::into_inner);
        let metadata = member(client.as_deref()?)?;
        match &*gate {
            Gate::Open => Some(metadata),
            Gate::Only(only) => (Some(identity(&metadata)) == *only).then_some(metadata),
            Gate::Shut => None,
        }
    }
}

/// The metadata, if the member is in a generation. Without one nothing fences its transaction.
/// Generations and member epochs start at 1; 0 is a member that KIP-848 lets join.
pub(super) fn member(client: &Client) -> Option<GroupMetadata> {
    GroupMetadata::of(client.base.client().native_client())
        .filter(|metadata| metadata.generation() > 0 && !metadata.member_id().is_empty())
}

/// What fences a member.
pub(super) fn identity(metadata: &GroupMetadata) -> (i32, String) {
    (metadata.generation(), metadata.member_id())
}

impl Group for LibrdGroup {
    fn generation(&self) -> Option<i32> {
        self.metadata().map(|metadata| metadata.generation())
    }
}
