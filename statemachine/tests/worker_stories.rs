//! What a worker does, told event by event.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod story;

use std::time::Duration;

use countersign_statemachine::worker::{Call, Input, SlotEvent};
use countersign_statemachine::{Disposition, PartitionId, Settings};
use story::{NOTHING, P, Story, assert_lets_go, settings, span};

#[test]
fn one_transaction_from_received_to_done() {
    let mut story = Story::owning(1);
    assert_eq!(story.received(0, 2), ["write 1, 0..=1 Start"]);
    assert_eq!(story.tell(Input::Stored { write: 1 }), ["handle 0..=1 attempt 0"]);
    assert_eq!(story.finished(0, 1), ["send 0 #1 0"]);
    assert_eq!(story.finished(1, 2), ["send 0 #1 1", "flush 0"]);
    assert_eq!(story.flushed(0), ["commit 0 #1 0@2"]);
    assert_eq!(story.committed(0), ["release 2"]);
    let written = ["write 2, transaction 1 Committed, 0..=1 Committed(Processed)"];
    assert_eq!(story.after(50, Input::Tick), written);
}

#[test]
fn two_slots_take_turns() {
    let mut story = Story::handling(2, 6);
    assert_eq!(story.finished(0, 6), ["send 0 #1 0..=1", "flush 0"]);
    let next = ["commit 0 #1 0@2", "send 1 #2 2..=3", "flush 1"];
    assert_eq!(story.flushed(0), next);
    assert_eq!(story.flushed(1), NOTHING, "it waits for the one before it");
    let next = ["release 2", "commit 1 #2 0@4", "send 0 #3 4..=5", "flush 0"];
    assert_eq!(story.committed(0), next);
}

#[test]
fn one_partition_does_not_wait_until_another_is_flushed() {
    let mut story = Story::handling(2, 4);
    let (another, epoch) = (PartitionId(1), 2);
    story.handling_another(another, epoch, 2);
    assert_eq!(story.finished(0, 2), ["send 0 #1 0..=1", "flush 0"]);
    assert_eq!(story.finished(2, 4), NOTHING, "its outputs would overtake");
    let (lane, spans) = (0, vec![span(0, 2)]);
    let finished = story.tell(Input::Finished { partition: another, epoch, lane, spans });
    assert_eq!(finished, ["send 1 #2 0..=1", "flush 1"]);
    assert_eq!(story.flushed(1), NOTHING, "commits keep their order");
    assert_eq!(story.flushed(0), ["commit 0 #1 0@2"], "no slot is free");
    let next = ["release 2", "commit 1 #2 1@2", "send 0 #3 2..=3", "flush 0"];
    assert_eq!(story.committed(0), next);
}

/// Large transactions, which end 5 ms after the one before at the earliest.
fn hasty() -> Settings {
    let commit_pause = Duration::from_millis(5);
    Settings { commit_pause, transaction_records: 10_000, handle_records: 5_000, ..settings(2) }
}

#[test]
fn a_transaction_that_nothing_is_about_to_join_ends_at_once_or_after_a_pause() {
    let mut story = Story::owning_with(hasty());
    story.received(0, 1);
    story.tell(Input::Stored { write: 1 });
    assert_eq!(story.finished(0, 1), ["send 0 #1 0", "flush 0"], "none was before it");
    story.after(1, Input::Tick);
    story.received(1, 2);
    story.flushed(0);
    story.committed(0);
    story.after(1, Input::Stored { write: 2 });
    assert_eq!(story.finished(1, 2), ["send 0 #2 1"]);
    assert_eq!(story.worker.poll_timeout(), Some(story.now + Duration::from_millis(3)));
    assert_eq!(story.after(2, Input::Tick), NOTHING);
    assert_eq!(story.after(1, Input::Tick), ["flush 0"]);
}

#[test]
fn a_transaction_waits_for_what_is_under_way_up_to_its_interval() {
    let mut story = Story::owning_with(hasty());
    story.received(0, 2);
    story.tell(Input::Stored { write: 1 });
    assert_eq!(story.finished(0, 1), ["send 0 #1 0"], "another message is being handled");
    assert_eq!(story.after(99, Input::Tick), NOTHING);
    assert_eq!(story.after(1, Input::Tick), ["flush 0"]);
}

#[test]
fn a_transaction_does_not_wait_for_what_waits_for_a_write_to_the_store() {
    let write_pause = Duration::from_millis(50);
    let mut story = Story::owning_with(Settings { write_pause, ..hasty() });
    story.received(0, 1);
    story.tell(Input::Stored { write: 1 });
    assert_eq!(story.received(1, 2), NOTHING, "it is to be written with others");
    assert_eq!(story.finished(0, 1), ["send 0 #1 0", "flush 0"]);
    assert_eq!(story.after(50, Input::Tick), ["write 2, 1 Start"]);
}

#[test]
fn a_transaction_of_many_messages_ends_with_its_interval() {
    let mut story = Story::owning_with(hasty());
    story.received(0, 1_000);
    story.tell(Input::Stored { write: 1 });
    assert_eq!(story.finished(0, 1_000), ["send 0 #1 0..=999"], "under load they grow");
    assert_eq!(story.after(99, Input::Tick), NOTHING);
    assert_eq!(story.after(1, Input::Tick), ["flush 0"]);
}

#[test]
fn the_interval_counts_from_what_was_finished_first_not_from_the_turn() {
    let mut story = Story::owning_with(hasty());
    story.received(0, 2_001);
    story.tell(Input::Stored { write: 1 });
    story.finished(0, 1_000);
    assert_eq!(story.after(100, Input::Tick), ["flush 0"]);
    assert_eq!(story.finished(1_000, 2_000), NOTHING, "its outputs would overtake");
    story.now += Duration::from_millis(60);
    assert_eq!(story.flushed(0), ["commit 0 #1 0@1000", "send 1 #2 1000..=1999"]);
    assert_eq!(story.committed(0), ["release 1000"]);
    assert_eq!(story.after(39, Input::Tick), NOTHING);
    assert_eq!(story.after(1, Input::Tick), ["flush 1"]);
}

#[test]
fn a_transaction_is_filled_until_the_one_before_it_is_committed() {
    let mut story = Story::owning_with(hasty());
    story.received(0, 3);
    story.tell(Input::Stored { write: 1 });
    story.finished(0, 1);
    assert_eq!(story.after(100, Input::Tick), ["flush 0"]);
    story.flushed(0);
    assert_eq!(story.finished(1, 2), ["send 1 #2 1"]);
    assert_eq!(story.after(100, Input::Tick), NOTHING, "it would only wait");
    assert_eq!(story.finished(2, 3), ["send 1 #2 2"], "nor would what is about to join it");
    assert_eq!(story.committed(0), ["release 1", "flush 1"]);
}

#[test]
fn a_full_transaction_ends_before_the_one_before_it_is_committed() {
    let mut story = Story::owning_with(hasty());
    story.received(0, 3_000);
    story.tell(Input::Stored { write: 1 });
    story.finished(0, 1_000);
    story.after(100, Input::Tick);
    story.flushed(0);
    assert_eq!(story.finished(1_000, 2_000), ["send 1 #2 1000..=1999"]);
    assert_eq!(story.tell(Input::Large { number: 2 }), ["flush 1"]);
}

#[test]
fn a_transaction_that_holds_much_memory_ends_before_its_interval() {
    let mut story = Story::owning_with(hasty());
    story.received(0, 2_000);
    story.tell(Input::Stored { write: 1 });
    assert_eq!(story.finished(0, 1_000), ["send 0 #1 0..=999"]);
    assert_eq!(story.tell(Input::Large { number: 2 }), NOTHING, "it is another one");
    assert_eq!(story.tell(Input::Large { number: 1 }), ["flush 0"]);
    assert_eq!(story.tell(Input::Large { number: 1 }), NOTHING);
}

#[test]
fn messages_that_trickle_in_are_signed_in_together() {
    let write_pause = Duration::from_millis(3);
    let mut story = Story::owning_with(Settings { write_pause, ..hasty() });
    assert_eq!(story.received(0, 1), ["write 1, 0 Start"]);
    story.after(1, Input::Stored { write: 1 });
    assert_eq!(story.received(1, 2), NOTHING);
    assert_eq!(story.worker.poll_timeout(), Some(story.now + Duration::from_millis(2)));
    story.now += Duration::from_millis(1);
    assert_eq!(story.received(2, 3), NOTHING);
    assert_eq!(story.after(1, Input::Tick), ["write 2, 1..=2 Start"]);
    story.after(5, Input::Stored { write: 2 });
    assert_eq!(story.received(3, 4), ["write 3, 3 Start"], "after a while there is no pause");
}

#[test]
fn half_of_what_may_be_under_way_is_worth_a_write() {
    let write_pause = Duration::from_millis(3);
    let mut story = Story::owning_with(Settings { write_pause, handle_records: 4, ..hasty() });
    assert_eq!(story.received(0, 3), ["write 1, 0..=2 Start"]);
    story.tell(Input::Stored { write: 1 });
    story.finished(0, 3);
    assert_eq!(story.received(3, 6), NOTHING);
    assert_eq!(story.received(6, 7), ["write 2, 3..=6 Start"]);
}

#[test]
fn messages_of_several_partitions_are_worth_a_write_together() {
    let write_pause = Duration::from_millis(3);
    let mut story = Story::owning_with(Settings { write_pause, handle_records: 4, ..hasty() });
    let another = (PartitionId(1), 2);
    story.owning_another(another.0, another.1);
    assert_eq!(story.received(0, 3), ["write 1, 0..=2 Start"]);
    story.tell(Input::Stored { write: 1 });
    story.finished(0, 3);
    assert_eq!(story.received(3, 5), NOTHING);
    assert_eq!(story.received_of(another, 0, 1), NOTHING);
    assert_eq!(story.received_of(another, 1, 2), ["write 2, 3..=4 Start, 0..=1 Start"]);
}

#[test]
fn what_follows_an_aborted_transaction_is_aborted_and_sent_again_in_order() {
    let mut story = Story::handling(2, 4);
    story.finished(0, 4);
    story.flushed(0);
    let faults = story.fault(0, Call::SendOffsets, Disposition::Abortable);
    assert_eq!(faults, ["abort 1", "abort 0"]);
    assert_eq!(story.aborted(1), NOTHING, "2 and 3 may not overtake 0 and 1");
    assert_eq!(story.aborted(0), NOTHING);
    assert_eq!(story.after(20, Input::Tick), ["send 0 #3 0..=1", "flush 0"]);
}

#[test]
fn a_lost_reply_is_found_committed() {
    let mut story = Story::committing(1, 2);
    assert_eq!(story.fault(0, Call::Commit, Disposition::Retriable), ["open 0 InDoubt"]);
    assert_eq!(story.slot(0, SlotEvent::Opened), ["read commits of #1"]);
    assert_eq!(story.commits(1, true), ["release 2"]);
    let written = story.after(50, Input::Tick);
    let told = "write 2, 0..=1 ReplyLost, transaction 1 InDoubt, \
                transaction 1 FoundCommitted, 0..=1 Committed(Processed)";
    assert_eq!(written, [told]);
}

#[test]
fn a_lost_reply_is_found_not_committed() {
    let mut story = Story::committing(1, 2);
    story.fault(0, Call::Commit, Disposition::Fatal);
    story.slot(0, SlotEvent::Opened);
    assert_eq!(story.commits(1, false), NOTHING, "it pauses after an abort");
    assert_eq!(story.after(10, Input::Tick), ["send 0 #2 0..=1", "flush 0"]);
}

#[test]
fn a_transaction_in_doubt_does_not_hold_a_lost_partition_back() {
    let mut story = Story::committing(1, 2);
    story.fault(0, Call::Commit, Disposition::Retriable);
    assert_lets_go(&story.tell(Input::Lost(vec![P])));
    assert_eq!(story.slot(0, SlotEvent::Opened), NOTHING, "nobody is left to ask for");
    assert!(story.worker.is_idle());
}

#[test]
fn a_lost_partition_waits_for_the_end_that_is_under_way() {
    let mut story = Story::committing(1, 2);
    assert_eq!(story.tell(Input::Lost(vec![P])), NOTHING);
    assert_lets_go(&story.committed(0));
}

#[test]
fn a_revoked_partition_commits_what_its_handler_had_finished() {
    let mut story = Story::handling(1, 3);
    assert_eq!(story.tell(Input::Revoked(vec![P])), ["interrupt"]);
    assert_eq!(story.received(3, 5), NOTHING, "nothing more is admitted");
    assert_eq!(story.at_end(5), NOTHING);
    assert_eq!(story.finished(0, 1), ["send 0 #1 0"]);
    assert_eq!(story.tell(Input::Yielded { partition: P, epoch: 1, lane: 0 }), ["flush 0"]);
    assert_eq!(story.flushed(0), ["commit 0 #1 0@1 released"]);
    assert_lets_go(&story.committed(0));
}

#[test]
fn a_handler_that_does_not_end_is_given_up_after_the_budget() {
    let mut story = Story::handling(1, 1);
    story.tell(Input::Revoked(vec![P]));
    assert_eq!(story.after(999, Input::Tick), NOTHING);
    assert_eq!(story.after(1, Input::Tick), ["halt"]);
    let write = "write 2, 0 RolledBack(Revoked)";
    assert_eq!(story.after(100, Input::Tick), ["forget", write, "unassign 1"]);
    assert_eq!(story.finished(0, 1), NOTHING, "it comes too late");
}

#[test]
fn an_assignment_is_answered_though_it_is_taken_back_meanwhile() {
    let mut story = Story::new(settings(1));
    assert_eq!(story.tell(Input::Assigned(vec![P])), NOTHING, "the slot is not open");
    assert_eq!(story.tell(Input::Revoked(vec![P])), ["assign 0", "unassign 1"]);
}

#[test]
fn the_first_start_is_committed_before_the_first_handler() {
    let mut story = Story::new(settings(1));
    story.slot(0, SlotEvent::Opened);
    assert_eq!(story.tell(Input::Assigned(vec![P])), ["recover 0"]);
    assert_eq!(story.recovered(None), ["assign 0@0", "flush 0"]);
    assert_eq!(story.received(0, 1), ["write 1, 0 Start"]);
    assert_eq!(story.tell(Input::Stored { write: 1 }), NOTHING);
    assert_eq!(story.flushed(0), ["commit 0 #1 0@0"]);
    assert_eq!(story.committed(0), ["release 0", "handle 0 attempt 0"]);
}

#[test]
fn the_end_of_the_log_moves_the_position_once() {
    let mut story = Story::owning(2);
    assert_eq!(story.at_end(7), ["flush 0"]);
    assert_eq!(story.flushed(0), ["commit 0 #1 0@7"]);
    assert_eq!(story.after(200, Input::Tick), NOTHING, "it is under way");
    assert_eq!(story.committed(0), ["release 7"]);
    assert_eq!(story.after(200, Input::Tick).len(), 1, "the record");
    story.tell(Input::Stored { write: 1 });
    assert_eq!(story.at_end(7), NOTHING);
    assert_eq!(story.worker.poll_timeout(), None);
}

#[test]
fn a_failed_message_waits_and_is_handled_again() {
    let mut story = Story::handling(1, 2);
    assert_eq!(story.failed(0), ["flush 0"], "how often it failed is committed");
    assert_eq!(story.after(9, Input::Tick), NOTHING);
    let again = ["write 2, 0 RolledBack(Error), 0 Again, 0 Start"];
    assert_eq!(story.after(1, Input::Tick), again);
    assert_eq!(story.tell(Input::Stored { write: 2 }), ["handle 0..=1 attempt 1"]);
}

#[test]
fn a_refused_output_is_found_by_sending_half_of_the_messages_at_a_time() {
    let mut story = Story::handling(1, 2);
    story.finished(0, 2);
    assert_eq!(story.refused(0), ["abort 0"]);
    assert_eq!(story.aborted(0), ["send 0 #2 0", "flush 0"], "Kafka is not to blame");
    assert_eq!(story.flushed(0), ["commit 0 #2 0@1"]);
    assert_eq!(story.committed(0), ["release 1", "send 0 #3 1", "flush 0"]);
    assert_eq!(story.refused(0), ["abort 0"]);
    story.aborted(0);
    assert_eq!(story.worker.counts().failures, 1, "it is 1 that is refused");
}

/// It was seen to hold up all others for seconds: each of its tries met them in one transaction
/// again, and the wait grew with every abort, as if Kafka were to blame.
#[test]
fn what_is_sent_with_a_refused_output_does_not_wait_with_it() {
    let mut story = Story::handling(1, 2);
    story.finished(0, 2);
    story.refused_of(0, 1);
    assert_eq!(story.aborted(0), ["send 0 #2 0"]);
    assert_eq!(story.worker.counts().failures, 1);
}

/// The other producer is filled and flushed meanwhile, but sends its offsets only behind the new
/// epoch: a late `TxnOffsetCommit` of the old one would set the group's offset back.
#[test]
fn a_suspicious_producer_is_opened_anew_before_the_other_commits() {
    let mut story = Story::handling(2, 4);
    story.finished(0, 4);
    story.flushed(0);
    let suspicious = SlotEvent::Committed { suspicious: true };
    assert_eq!(story.slot(0, suspicious), ["open 0 Suspicious", "release 2"]);
    assert_eq!(story.flushed(1), [""; 0]);
    assert_eq!(story.slot(0, SlotEvent::Opened), ["commit 1 #2 0@4"]);
}

/// One that has a transaction is replaced when that has ended, others at once.
#[test]
fn outdated_producers_are_opened_anew_once_they_have_no_transaction() {
    let mut story = Story::handling(2, 4);
    story.finished(0, 2);
    assert_eq!(story.tell(Input::Outdated), ["open 1 Outdated"]);
    story.slot(1, SlotEvent::Opened);
    story.flushed(0);
    assert_eq!(story.committed(0)[..1], ["open 0 Outdated"]);
    assert_eq!(story.slot(0, SlotEvent::Opened), [""; 0]);
    assert_eq!(story.worker.counts().renewed, 2);
}

/// Its settings were read before they changed.
#[test]
fn a_producer_that_becomes_outdated_while_it_is_opened_is_opened_once_more() {
    let mut story = Story::new(settings(1));
    assert_eq!(story.tell(Input::Outdated), [""; 0]);
    assert_eq!(story.slot(0, SlotEvent::Opened), ["open 0 Outdated"]);
    assert_eq!(story.slot(0, SlotEvent::Opened), [""; 0]);
}

/// Two owners of an id fence each other at every transaction.
#[test]
fn young_transactions_that_are_fenced_again_and_again_stop_the_worker() {
    let mut story = Story::handling(1, 1);
    story.finished(0, 1);
    for _ in 0..2 {
        story.after(100, Input::Tick);
        assert_eq!(story.fault(0, Call::Flush, Disposition::Fenced), ["open 0 Failed"]);
        story.slot(0, SlotEvent::Opened);
        story.after(100, Input::Tick);
    }
    story.after(100, Input::Tick);
    let stopped = story.fault(0, Call::Flush, Disposition::Fenced);
    assert_eq!(stopped.last().map(String::as_str), Some("stop ok=false"));
    assert_eq!(story.committed(0), NOTHING);
}

/// A late copy of `AddOffsetsToTxn` opened a transaction while the worker was idle, and the
/// coordinator timed it out. This may happen now and then.
#[test]
fn a_fencing_now_and_then_is_not_of_another_owner() {
    let mut story = Story::handling(1, 1);
    story.finished(0, 1);
    for _ in 0..10 {
        story.after(100, Input::Tick);
        assert_eq!(story.fault(0, Call::Flush, Disposition::Fenced), ["open 0 Failed"]);
        story.slot(0, SlotEvent::Opened);
        // The abort's wait, and then a while without transactions.
        story.after(61_000, Input::Tick);
    }
}

/// Whether its transaction was committed is not known then.
#[test]
fn a_commit_that_is_fenced_is_in_doubt() {
    let mut story = Story::committing(1, 2);
    let doubt = story.fault(0, Call::Commit, Disposition::Fenced);
    assert_eq!(doubt.last().map(String::as_str), Some("open 0 InDoubt"));
}

#[test]
fn an_old_transaction_that_is_fenced_has_timed_out() {
    let mut story = Story::handling(1, 2);
    story.finished(0, 2);
    story.after(10_000, Input::Tick);
    assert_eq!(story.fault(0, Call::Flush, Disposition::Fenced), ["open 0 Failed"]);
}

#[test]
fn a_drained_worker_releases_leaves_and_stops() {
    let mut story = Story::handling(1, 1);
    assert_eq!(story.tell(Input::Drain), ["interrupt"]);
    assert_eq!(story.finished(0, 1), ["send 0 #1 0", "flush 0"]);
    assert_eq!(story.flushed(0), ["commit 0 #1 0@1 released"]);
    assert_eq!(story.committed(0), ["release 1", "leave"]);
    let last = story.tell(Input::Revoked(vec![P]));
    let record = "write 2, transaction 1 Committed, 0 Committed(Processed)";
    assert_eq!(last, ["forget", record, "unassign 1", "stop ok=true"]);
}

/// Without an answer that names every partition, the group's revocation would never come.
#[test]
fn an_assignment_is_answered_in_whole_when_the_budget_of_a_drain_is_used_up() {
    let mut story = Story::new(settings(1));
    story.slot(0, SlotEvent::Opened);
    assert_eq!(story.tell(Input::Assigned(vec![P])), ["recover 0"]);
    assert_eq!(story.tell(Input::Drain), NOTHING);
    assert_eq!(story.after(1_000, Input::Tick), ["assign 0", "leave"]);
    assert_eq!(story.received(0, 3), NOTHING, "nothing of it is handled");
    let last = story.tell(Input::Revoked(vec![P]));
    assert_eq!(last, ["forget", "unassign 1", "stop ok=true"]);
}

#[test]
fn a_second_retry_does_not_replace_the_first() {
    let mut story = Story::handling(1, 3);
    story.finished(0, 1);
    story.failed(1);
    story.after(100, Input::Tick);
    story.refused_of(0, 0);
    story.aborted(0);
    story.tell(Input::Stored { write: 2 });
    story.after(100, Input::Tick);
    assert_eq!(story.tell(Input::Stored { write: 3 }), ["handle 0 attempt 1"]);
    let after = story.finished(0, 1);
    assert_eq!(after.first().map(String::as_str), Some("handle 1..=2 attempt 1"), "{after:?}");
}

/// A broker that is away refuses nothing: no message is to blame, however alone it is.
#[test]
fn what_fails_for_how_kafka_is_uses_no_attempt_up() {
    let mut story = Story::handling(1, 1);
    story.finished(0, 1);
    for _ in 0..5 {
        story.after(10_000, Input::Tick);
        story.after(200, Input::Tick);
        story.fault(0, Call::Flush, Disposition::Abortable);
        story.aborted(0);
    }
    assert_eq!(story.worker.counts().aborted, 5);
    assert_eq!(story.worker.counts().failures, 0);
}
