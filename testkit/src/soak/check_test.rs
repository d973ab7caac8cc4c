//! Goal: the check sees every way in which a run can be wrong. Method: a log as a perfect run
//! leaves it, spoilt in one place.

use super::check::{Rule, check};
use super::log::{Letter, Log, Made};
use super::plan::{End, Fault, OUTPUTS, Plan};

const TOTAL: u64 = 30_000;

/// How often partitions were taken up.
const TAKEOVERS: u32 = 3;

const PARTITIONS: usize = 4;

/// What a run leaves in which everything is right.
fn perfect() -> Log {
    let mut log = Log::default();
    let mut ends = [0; PARTITIONS];
    for plan in (0..TOTAL).map(Plan::of) {
        // Any function of the key will do.
        let partition = plan.key().len() % PARTITIONS;
        let end = &mut ends[partition];
        let place = (u32::try_from(partition).expect("there are four"), *end);
        *end += 1;
        log.inputs.insert(place, plan.index);
        match plan.end() {
            End::Outputs { attempt } => put_outputs(&mut log, &plan, place, attempt),
            End::Letter { attempts } => put_letter(&mut log, &plan, place, attempts),
        }
    }
    log
}

/// Its offsets have gaps between them, as those of transactions do.
fn put_outputs(log: &mut Log, plan: &Plan, (partition, offset): (u32, u64), attempt: u32) {
    let (key, index) = (plan.key(), plan.index);
    let made = Made { partition, offset: 2 * offset, key, index, attempt };
    let wanted = log.outputs.iter_mut().zip(plan.outputs).filter(|(_, is_wanted)| *is_wanted);
    wanted.for_each(|(topic, _)| topic.push(made.clone()));
}

fn put_letter(log: &mut Log, plan: &Plan, place: (u32, u64), attempts: u32) {
    let (fault, _) = plan.fails.expect("only those that fail have letters");
    let (disposition, class) = fault.words();
    log.letters.push(Letter {
        partition: place.0,
        offset: 2 * place.1,
        key: plan.key(),
        value: plan.value(),
        original: place,
        disposition: disposition.to_owned(),
        class: class.to_owned(),
        attempts,
    });
}

/// The check of a perfect log that was spoilt finds this rule broken so often, and no other.
#[track_caller]
fn assert_finds(rule: Rule, times: u64, spoil: impl FnOnce(&mut Log)) {
    let mut log = perfect();
    spoil(&mut log);
    let verdict = check(TOTAL, &log, TAKEOVERS);
    let found: Vec<(Rule, u64)> = verdict.violations.iter().map(|(r, (n, _))| (*r, *n)).collect();
    assert_eq!(found, [(rule, times)], "{verdict}");
    assert!(!verdict.is_exact());
    assert!(verdict.to_string().ends_with("NOT EXACT"));
}

/// The first message of which this holds, and its place in the input.
fn find(log: &Log, is_it: impl Fn(&Plan) -> bool) -> (Plan, (u32, u64)) {
    let plan = (0..TOTAL).map(Plan::of).find(is_it).expect("there is one");
    let place = log.inputs.iter().find(|(_, index)| **index == plan.index);
    (plan, *place.expect("all are in the input").0)
}

fn outputs(plan: &Plan) -> usize {
    plan.outputs.iter().filter(|is_wanted| **is_wanted).count()
}

fn is_healthy(plan: &Plan) -> bool {
    plan.fails.is_none()
}

fn remove_outputs(log: &mut Log, index: u64) {
    log.outputs.iter_mut().for_each(|topic| topic.retain(|made| made.index != index));
}

#[test]
fn a_perfect_log_is_exact_and_its_counts_add_up() {
    let verdict = check(TOTAL, &perfect(), TAKEOVERS);
    assert!(verdict.is_exact(), "{verdict}");
    assert!(verdict.to_string().ends_with("exact"));
    let rows = || verdict.rows.values();
    assert_eq!(rows().map(|row| row.planned).sum::<u64>(), TOTAL);
    assert_eq!(rows().map(|row| row.outputs + row.letters).sum::<u64>(), TOTAL);
    let letters = rows().map(|row| row.letters).sum::<u64>();
    assert_eq!(verdict.dispositions.values().sum::<u64>(), letters);
    let row = verdict.rows[&Some(Fault::Permanent)];
    assert_eq!((row.outputs, row.letters), (0, row.planned));
}

#[test]
fn a_message_without_outputs_is_lost() {
    assert_finds(Rule::Lost, 1, |log| {
        let (plan, _) = find(log, is_healthy);
        remove_outputs(log, plan.index);
    });
    assert_finds(Rule::Lost, 1, |log| drop(log.letters.remove(7)));
}

#[test]
fn one_of_several_outputs_missing_is_torn() {
    assert_finds(Rule::Torn, 1, |log| {
        let (plan, _) = find(log, |plan| is_healthy(plan) && outputs(plan) == OUTPUTS.len());
        log.outputs[1].retain(|made| made.index != plan.index);
    });
}

#[test]
fn an_output_to_a_topic_of_others_is_torn() {
    assert_finds(Rule::Torn, 1, |log| {
        let last = Plan::of(TOTAL - 1);
        assert!(is_healthy(&last) && outputs(&last) < OUTPUTS.len(), "{last:?}");
        let made = log.outputs.iter().flatten().find(|made| made.index == last.index);
        let made = made.expect("it has outputs").clone();
        let other = last.outputs.iter().position(|is_wanted| !is_wanted).expect("not all");
        log.outputs[other].push(made);
    });
}

/// The second copy of an output stands right behind the first, or where the log ended when a
/// process came back.
#[test]
fn an_output_or_a_letter_that_is_there_twice_is_doubled() {
    let double = |log: &mut Log| {
        let last = log.outputs[2].last().expect("there are outputs").clone();
        log.outputs[2].push(last);
    };
    let mut log = perfect();
    double(&mut log);
    let verdict = check(TOTAL, &log, TAKEOVERS);
    // The copy is out of order, too.
    let rules: Vec<Rule> = verdict.violations.keys().copied().collect();
    assert_eq!(rules, [Rule::Doubled, Rule::Order]);
    let mut log = perfect();
    let letter = log.letters[3].clone();
    log.letters.push(letter);
    let verdict = check(TOTAL, &log, TAKEOVERS);
    assert_eq!(verdict.violations[&Rule::Doubled].0, 1);
}

#[test]
fn outputs_and_a_letter_of_one_message_are_both_ends() {
    assert_finds(Rule::BothEnds, 1, |log| {
        let last = Plan::of(TOTAL - 1);
        let place = *log.inputs.iter().find(|(_, index)| **index == last.index).expect("all are").0;
        let letter = Letter { original: place, key: last.key(), ..log.letters[0].clone() };
        log.letters.push(letter);
    });
}

/// What a crash that counts as a failure would do.
#[test]
fn a_letter_of_a_message_that_would_have_succeeded_is_found() {
    assert_finds(Rule::GivenUp, 1, |log| {
        let last = Plan::of(TOTAL - 1);
        let place = *log.inputs.iter().find(|(_, index)| **index == last.index).expect("all are").0;
        remove_outputs(log, last.index);
        let letter = Letter { original: place, key: last.key(), ..log.letters[0].clone() };
        log.letters.push(letter);
    });
}

#[test]
fn outputs_of_a_message_that_had_to_be_given_up_are_found() {
    assert_finds(Rule::NotGivenUp, 1, |log| {
        let nth = log.letters.len() - 1;
        let letter = log.letters.remove(nth);
        let index = log.inputs[&letter.original];
        // Where it would be in order.
        let at = log.outputs[0].partition_point(|made| made.index < index);
        let (partition, key) = (letter.partition, letter.key);
        log.outputs[0].insert(at, Made { partition, offset: 0, key, index, attempt: 6 });
    });
}

/// A crash or an abort that used up an attempt would make a later one succeed.
#[test]
fn an_output_of_another_attempt_is_found() {
    for change in [1, -1] {
        assert_finds(Rule::Attempts, 1, |log| {
            let (plan, _) = find(log, |plan| {
                let is_late = matches!(plan.end(), End::Outputs { attempt } if attempt > 2);
                is_late && outputs(plan) == 1
            });
            let made = log.outputs.iter_mut().flatten().find(|made| made.index == plan.index);
            let made = made.expect("it has an output");
            made.attempt = made.attempt.checked_add_signed(change).expect("small");
        });
    }
}

#[test]
fn a_letter_may_tell_of_one_more_attempt_for_each_takeover_and_of_none_less() {
    let mut log = perfect();
    log.letters[0].attempts += TAKEOVERS;
    let verdict = check(TOTAL, &log, TAKEOVERS);
    assert!(verdict.is_exact(), "{verdict}");
    assert_eq!(verdict.rows.values().map(|row| row.tried_again).sum::<u64>(), 1);
    assert_finds(Rule::Attempts, 1, |log| log.letters[0].attempts += TAKEOVERS + 1);
    assert_finds(Rule::Attempts, 1, |log| log.letters[0].attempts -= 1);
}

#[test]
fn a_letter_that_says_something_else_or_is_something_else_is_found() {
    assert_finds(Rule::Letter, 1, |log| log.letters[5].disposition = "POISON_PILL".to_owned());
    assert_finds(Rule::Letter, 1, |log| log.letters[5].class = "deadlines".to_owned());
    assert_finds(Rule::Letter, 1, |log| log.letters[5].value.push(b' '));
}

#[test]
fn outputs_of_one_key_in_another_order_are_found() {
    assert_finds(Rule::Order, 1, |log| {
        let topic = &mut log.outputs[0];
        let first = topic[0].clone();
        let next = topic.iter().skip(1).position(|made| made.key == first.key);
        topic.swap(0, next.expect("a key has many messages") + 1);
    });
}

#[test]
fn outputs_of_one_key_in_two_partitions_are_found() {
    // It is neither where the one before it was nor where the one after it is.
    assert_finds(Rule::Order, 2, |log| {
        let topic = &mut log.outputs[0];
        let key = topic[0].key.clone();
        let mut of_key = topic.iter_mut().filter(|made| made.key == key);
        of_key.nth(1).expect("a key has many messages").partition += 1;
    });
}

#[test]
fn outputs_and_letters_of_no_message_are_found() {
    assert_finds(Rule::Unknown, 1, |log| {
        let index = TOTAL + 1;
        let key = Plan::of(index).key();
        let of_key = log.outputs[0].iter().find(|made| made.key == key);
        let partition = of_key.expect("a key has many messages").partition;
        log.outputs[0].push(Made { partition, offset: 9, key, index, attempt: 1 });
    });
    assert_finds(Rule::Unknown, 1, |log| {
        let letter = Letter { original: (99, 99), ..log.letters[0].clone() };
        log.letters.push(letter);
    });
}

#[test]
fn an_input_that_is_not_what_was_loaded_is_found() {
    let mut log = perfect();
    let place = *log.inputs.keys().next().expect("there is input");
    log.inputs.remove(&place);
    let verdict = check(TOTAL, &log, TAKEOVERS);
    assert!(verdict.violations.contains_key(&Rule::Input), "{verdict}");
    assert_finds(Rule::Input, 1, |log| {
        log.inputs.insert((77, 0), 5);
    });
}
