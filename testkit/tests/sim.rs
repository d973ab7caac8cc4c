//! Goal: the simulation finds nothing wrong with the processor, and would if there were something.
//! Method: worlds from seeds; and evidence that is tampered with, one promise at a time.
//! `make sim SEEDS=1000` runs more.

use countersign::dead_letter::LetterDisposition;
use countersign::kafka::TopicPartition;
use countersign::statemachine::State;
use countersign_testkit::model::CommitRecord;
use countersign_testkit::sim::{self, Evidence, World};

fn run(world: &World) -> sim::Report {
    let report = sim::run(world, false);
    if let Some(failure) = &report.failure {
        panic!(
            "seed {}: {failure}; to repeat it: countersign-sim --seed {0} --verbose",
            world.seed
        );
    }
    report
}

/// The evidence of a run in which nothing went wrong.
fn evidence() -> Evidence {
    run(&World::calm(7)).evidence.expect("a run without a failure is judged")
}

/// Which promise is found broken.
fn broken(evidence: &Evidence) -> &'static str {
    sim::judge(evidence).expect_err("what was tampered with is found").invariant
}

#[test]
fn a_calm_world_is_done() {
    let report = run(&World::calm(1));
    let evidence = report.evidence.expect("a run without a failure is judged");
    let inputs: usize = evidence.inputs.values().map(Vec::len).sum();
    assert!(inputs >= 200, "{inputs} messages were visible");
    assert!(evidence.outputs.len() > inputs, "there are 0 to 3 outputs for each of {inputs}");
    assert!(!evidence.stores.is_empty(), "the store knows what was done");
}

#[test]
fn worlds_with_a_nemesis_are_done_exactly_once() {
    for seed in 0..12 {
        run(&World::draw(seed));
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let world = World::draw(3);
    let (first, second) = (run(&world), run(&world));
    assert_eq!(first.hash, second.hash);
    assert_eq!(first.totals, second.totals);
    assert_ne!(first.hash, run(&World::draw(4)).hash);
}

#[test]
fn a_missing_output_is_a_loss() {
    let mut evidence = evidence();
    evidence.outputs.remove(20);
    assert_eq!(broken(&evidence), "no_loss");
}

#[test]
fn an_output_that_is_there_twice_is_a_duplicate() {
    let mut evidence = evidence();
    let twice = evidence.outputs[20].clone();
    evidence.outputs.push(twice);
    assert_eq!(broken(&evidence), "no_duplicate");
}

#[test]
fn an_output_of_an_aborted_message_is_a_duplicate() {
    let mut evidence = evidence();
    let mut foreign = evidence.outputs[20].clone();
    foreign.value = "aborted 0>0".to_owned();
    evidence.outputs.push(foreign);
    assert_eq!(broken(&evidence), "no_duplicate");
}

#[test]
fn an_output_in_another_transaction_is_not_atomic() {
    let mut evidence = evidence();
    evidence.outputs[20].transaction = Some(1_000_000);
    assert_eq!(broken(&evidence), "atomic");
}

#[test]
fn an_offset_in_another_transaction_is_not_atomic() {
    let mut evidence = evidence();
    for record in commits(&mut evidence) {
        record.transaction = record.transaction.map(|number| number + 1_000_000);
    }
    assert_eq!(broken(&evidence), "atomic");
}

#[test]
fn an_offset_that_goes_back_is_found() {
    let mut evidence = evidence();
    let records = commits(&mut evidence);
    let last = records.last().expect("the partition was committed").clone();
    records.push(CommitRecord { committed: records[0].committed.clone(), ..last });
    assert_eq!(broken(&evidence), "offset_monotonic");
}

fn commits(evidence: &mut Evidence) -> &mut Vec<CommitRecord> {
    let partition = TopicPartition::new("in-0", 0);
    evidence.commits.get_mut(&partition).expect("the world has this partition")
}

#[test]
fn outputs_out_of_order_are_found() {
    let mut evidence = evidence();
    let origin = |index: usize, evidence: &Evidence| {
        let seen = &evidence.outputs[index];
        let from = seen.provenance.as_ref().map(|provenance| provenance.partition.clone());
        (seen.at.clone(), from)
    };
    let later = (21..evidence.outputs.len())
        .find(|&later| origin(later, &evidence) == origin(20, &evidence))
        .expect("many outputs go from one partition to another");
    evidence.outputs.swap(20, later);
    assert_eq!(broken(&evidence), "order");
}

/// The evidence of a run in which a message ends its processes.
fn poisoned() -> Evidence {
    let letters = Some(("dead".to_owned(), 1));
    let world = World { letters, pill_of: Some(61), ..World::calm(7) };
    run(&world).evidence.expect("a run without a failure is judged")
}

#[test]
fn a_message_that_is_blamed_without_an_announcement_is_found() {
    let mut evidence = poisoned();
    let poison = LetterDisposition::PoisonPill;
    let letters = evidence.outputs.iter().filter(|seen| seen.disposition == Some(poison)).count();
    assert!(letters > 0, "the world has a pill");
    evidence.outputs[0].disposition = Some(poison);
    assert_eq!(broken(&evidence), "no_blame");
}

#[test]
fn a_poison_pill_that_is_not_found_is_found() {
    let mut evidence = poisoned();
    let letters = evidence.outputs.iter_mut().filter_map(|seen| seen.disposition.as_mut());
    letters.for_each(|disposition| *disposition = LetterDisposition::ClientRejected);
    assert_eq!(broken(&evidence), "no_blame");
}

#[test]
fn a_store_that_is_behind_is_found() {
    let mut evidence = evidence();
    let stored = evidence.stores.iter_mut().find(|stored| !stored.runs.is_empty());
    let stored = stored.expect("the store knows what was done");
    stored.runs[0].history.state = State::Processing;
    assert_eq!(broken(&evidence), "store_agrees");
}

#[test]
fn an_open_transaction_is_found() {
    let mut evidence = evidence();
    evidence.open.push("left-over".to_owned());
    assert_eq!(broken(&evidence), "bounded");
}
