//! Group membership: handing over, losing, leaving, fencing.

use std::time::Duration;

use countersign::kafka::{Admin, Consumer, ErrorKind, Kafka};
use countersign_statemachine::Disposition;
use tokio::time::Instant;

use super::reader::joined;
use super::{ClientSpec, Cluster, DEADLINE, QUIET, Reader, SHORT_POLL_INTERVAL};

/// A revoked partition goes to another member only when it was given back (cooperative).
pub async fn revoked_partition_waits_for_unassign<C: Cluster>(cluster: &C) {
    let topic = "revoked_partition_waits_for_unassign";
    hand_over(cluster, topic, ClientSpec::new(topic, topic), 1).await;
}

/// As above for eager members, which give back everything.
pub async fn eager_partition_waits_for_unassign<C: Cluster>(cluster: &C) {
    let topic = "eager_partition_waits_for_unassign";
    hand_over(cluster, topic, ClientSpec::new(topic, topic).eager(), 2).await;
}

async fn hand_over<C: Cluster>(cluster: &C, topic: &str, spec: ClientSpec, revoked: usize) {
    cluster.create_topic(topic, 2, None).await;
    let mut first = joined(cluster, &spec).await;
    first.until("everything is assigned", |first| first.owned.len() == 2).await;
    let second = cluster.client(&spec).consumer(1).expect("valid settings");
    let mut second = Reader::new(second);
    poll_both(&mut first, &mut second, "a revocation", |first, _| first.revoked.is_some()).await;
    assert_eq!(first.revoked.as_ref().map(Vec::len), Some(revoked));
    let deadline = Instant::now() + QUIET;
    while Instant::now() < deadline {
        second.poll().await;
        first.poll().await;
        assert!(second.owned.is_empty(), "given to another while it is owned");
    }
    first.give_back();
    let is_shared =
        |first: &Reader<_>, second: &Reader<_>| first.owned.len() == 1 && second.owned.len() == 1;
    poll_both(&mut first, &mut second, "one partition each", is_shared).await;
    assert!(first.owned.is_disjoint(&second.owned));
}

async fn poll_both<K: Consumer>(
    first: &mut Reader<K>,
    second: &mut Reader<K>,
    what: &str,
    is_so: impl Fn(&Reader<K>, &Reader<K>) -> bool,
) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so(first, second) {
        assert!(Instant::now() < deadline, "in time: {what}");
        first.poll().await;
        second.poll().await;
    }
}

/// A member that stays away too long loses its partitions and gets them again.
pub async fn missed_polls_lose_partitions<C: Cluster>(cluster: &C) {
    let topic = "missed_polls_lose_partitions";
    cluster.create_topic(topic, 1, None).await;
    let mut reader = joined(cluster, &ClientSpec::new(topic, topic).short_poll_interval()).await;
    // The behaviour is what happens when this time has passed without a poll.
    tokio::time::sleep(SHORT_POLL_INTERVAL + Duration::from_secs(2)).await;
    reader.until("the partitions are lost", |reader| reader.lost.is_some()).await;
    assert!(reader.faults.contains(&ErrorKind::PollExceeded), "{:?}", reader.faults);
    reader.give_back();
    assert!(reader.owned.is_empty());
    reader.until("the member is back", |reader| !reader.owned.is_empty()).await;
}

/// A member that leaves hands its partitions over without a time-out.
pub async fn leaving_hands_over<C: Cluster>(cluster: &C) {
    let topic = "leaving_hands_over";
    cluster.create_topic(topic, 1, None).await;
    let spec = ClientSpec::new(topic, topic);
    let mut first = joined(cluster, &spec).await;
    first.consumer.unsubscribe().expect("subscribed");
    first.until("everything is revoked", |first| first.revoked.is_some()).await;
    first.give_back();
    let left = Instant::now();
    let _second = joined(cluster, &spec).await;
    let session = Duration::from_millis(spec.session_timeout_ms);
    assert!(left.elapsed() < session, "took {:?}", left.elapsed());
}

/// Who takes the place of a static member that died while it gave partitions back finds the group
/// stable with partitions that are nobody's, and mends it by joining once more.
pub async fn rejoin_gives_out_what_is_nobodys<C: Cluster>(cluster: &C) {
    let topic = "rejoin_gives_out_what_is_nobodys";
    cluster.create_topic(topic, 4, None).await;
    let spec = ClientSpec::new(topic, topic).instance(topic);
    let mut first = joined(cluster, &spec).await;
    first.until("everything is assigned", |first| first.owned.len() == 4).await;
    let mut second = Reader::new(cluster.client(&spec).consumer(1).expect("valid settings"));
    poll_both(&mut first, &mut second, "a revocation", |first, _| first.revoked.is_some()).await;
    assert!(first.consumer.rejoin().is_err(), "no assignment waits");
    // It never answers. Dropping it would: it lives on as one that is fenced.
    let mut admin = cluster.client(&spec).admin().expect("valid settings");
    let former = first;
    let mut successor = Reader::new(cluster.client(&spec).consumer(0).expect("valid settings"));
    successor.rejoins = true;
    let is_given = |successor: &Reader<_>, _: &Reader<_>| !successor.owned.is_empty();
    let members = admin.members(DEADLINE).await.expect("the broker is there");
    assert_eq!((members.is_stable, members.assigned.len()), (true, 2));
    poll_both(&mut successor, &mut second, "what the first had kept", is_given).await;
    assert!(successor.owned.iter().eq(members.assigned.keys()));
    let names: Vec<_> = members.all.iter().map(|member| member.instance.clone()).collect();
    assert!(names.iter().all(Option::is_some), "{names:?}");
    let owners = members.assigned.values();
    assert!(owners.clone().all(|owner| members.all.contains(owner)), "{members:?}");
    let is_shared =
        |first: &Reader<_>, second: &Reader<_>| first.owned.len() == 2 && second.owned.len() == 2;
    poll_both(&mut successor, &mut second, "two partitions each", is_shared).await;
    assert!(successor.owned.is_disjoint(&second.owned));
    assert_eq!(admin.members(DEADLINE).await.expect("it is there").assigned.len(), 4);
    drop(former);
}

/// A static member that leaves hands its partitions over as well.
pub async fn static_member_leaving_hands_over<C: Cluster>(cluster: &C) {
    let topic = "static_member_leaving_hands_over";
    cluster.create_topic(topic, 1, None).await;
    let spec = ClientSpec::new(topic, topic).instance("one");
    let mut first = joined(cluster, &spec).await;
    first.consumer.unsubscribe().expect("subscribed");
    first.until("everything is revoked", |first| first.revoked.is_some()).await;
    first.give_back();
    let left = Instant::now();
    let _second = joined(cluster, &spec.clone().instance("two")).await;
    let session = Duration::from_millis(spec.session_timeout_ms);
    assert!(left.elapsed() < session, "took {:?}", left.elapsed());
}

/// A newer member with the same instance id takes over; the older one ends.
pub async fn newer_static_member_fences_the_older<C: Cluster>(cluster: &C) {
    let topic = "newer_static_member_fences_the_older";
    cluster.create_topic(topic, 1, None).await;
    let spec = ClientSpec::new(topic, topic).instance("twin");
    let mut older = joined(cluster, &spec).await;
    let newer = joined(cluster, &spec).await;
    assert_eq!(newer.owned.len(), 1);
    older.until("the older member ends", |older| older.error.is_some()).await;
    let error = older.error.as_ref().expect("waited for");
    assert_eq!((error.kind, error.disposition), (ErrorKind::FencedInstance, Disposition::Fatal));
}
