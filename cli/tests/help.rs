//! Goal: the command line does not change by accident; other tools rely on it.
//! Method: the help of each verb is compared with `snapshots/`. `COUNTERSIGN_SNAPSHOTS=write cargo
//! test -p countersign-cli --test help` writes them anew.

mod common;

use std::fs;
use std::path::Path;

fn compare(name: &str, args: &[&str]) {
    let shown = common::with(args).done().stdout;
    // Paragraphs of clap end in blanks, which editors remove.
    let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
    let shown = lines.join("\n") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var("COUNTERSIGN_SNAPSHOTS").is_ok_and(|what| what == "write") {
        fs::write(&path, &shown).expect("the snapshots can be written");
    }
    let expected = fs::read_to_string(&path).expect("there is a snapshot");
    assert!(shown == expected, "{name} is out of date; now it is:\n{shown}");
}

#[test]
fn the_help_of_the_command_is_as_recorded() {
    compare("countersign.txt", &["--help"]);
}

#[test]
fn the_help_of_run_is_as_recorded() {
    compare("run.txt", &["run", "--help"]);
}

#[test]
fn the_help_of_state_is_as_recorded() {
    compare("state.txt", &["state", "--help"]);
}

#[test]
fn the_help_of_why_is_as_recorded() {
    compare("why.txt", &["why", "--help"]);
}

#[test]
fn the_help_of_dead_letters_is_as_recorded() {
    compare("dead-letters-list.txt", &["dead-letters", "list", "--help"]);
    compare("dead-letters-show.txt", &["dead-letters", "show", "--help"]);
}

#[test]
fn the_help_of_the_verbs_that_unblock_is_as_recorded() {
    compare("skip.txt", &["skip", "--help"]);
    compare("retry.txt", &["retry", "--help"]);
    compare("dead-letter.txt", &["dead-letter", "--help"]);
}

/// The document is for reading, the help for looking up; they must not contradict each other.
#[test]
fn the_document_names_every_flag_and_every_exit_code() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(manifest.join("../docs/cli.md")).expect("there is one");
    let verbs = [
        "run",
        "state",
        "why",
        "dead-letters list",
        "dead-letters show",
        "skip",
        "retry",
        "dead-letter",
    ];
    for verb in verbs {
        let words: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
        let help = common::with(&words).done().stdout;
        let words = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        for flag in words.filter(|word| word.starts_with("--") && word.len() > 3) {
            assert!(document.contains(&format!("`{flag}")), "docs/cli.md does not name {flag}");
        }
        let codes = help.lines().skip_while(|line| *line != "Exit codes:").skip(1);
        for code in codes.filter_map(|line| line.split_whitespace().next()) {
            assert!(document.contains(&format!("| {code} |")), "docs/cli.md lacks code {code}");
        }
    }
}
