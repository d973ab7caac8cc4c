//! Goal: the README shows what is there.
//! Method: what it repeats from other files is compared with them.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The first code block of a language.
fn block(text: &str, language: &str) -> String {
    let (_, after) = text.split_once(&format!("```{language}\n")).expect("there is such a block");
    let (code, _) = after.split_once("```").expect("the block ends");
    code.to_owned()
}

#[test]
fn the_example_is_the_one_that_is_compiled() {
    assert_eq!(block(&read("README.md"), "rust"), read("examples/invoices.rs"));
}

#[test]
fn the_handlers_in_other_languages_are_those_that_are_run() {
    let (readme, exec) = (read("README.md"), read("docs/exec.md"));
    let python = read("examples/handlers/invoices.py");
    assert_eq!(block(&readme, "python"), python);
    assert_eq!(block(&exec, "python"), python);
    let shell = read("examples/handlers/upper.sh");
    assert!(exec.contains(&format!("```sh\n{shell}```")), "docs/exec.md shows upper.sh");
}

#[test]
fn the_diagram_is_the_one_that_is_made_from_the_transitions() {
    let (readme, states) = (read("README.md"), read("docs/states.md"));
    assert_eq!(block(&readme, "mermaid"), block(&states, "mermaid"));
}

#[test]
fn the_exit_codes_are_those_of_the_command_line() {
    let (readme, source) = (read("README.md"), read("cli/src/failure.rs"));
    let (_, help) = source.split_once("Exit codes:\n").unwrap();
    let (help, _) = help.split_once("\";").unwrap();
    let shown = help.lines().map(|line| line.trim().split_once("  ").unwrap());
    let codes = shown.inspect(|(code, meaning)| {
        let row = format!("| {code} | {meaning} |");
        assert!(readme.contains(&row), "the README lacks {row}");
    });
    assert_eq!(codes.count(), 11);
}

/// Links to files that were moved lead nowhere, and nobody notices.
#[test]
fn links_between_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for path in
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tests/README.md"].into_iter().chain([
            "docs/architecture.md",
            "docs/cli.md",
            "docs/exec.md",
            "docs/failures.md",
            "docs/format.md",
            "docs/glossary.md",
            "docs/states.md",
        ])
    {
        let text = read(path);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for target in targets.map(|(target, _)| target).filter(|target| !target.contains("://")) {
            let file = target.split('#').next().unwrap_or_default();
            let found = root.join(path).parent().unwrap().join(file);
            assert!(found.exists(), "{path} links to {target}");
            links += 1;
        }
    }
    assert!(links > 10, "only {links} links were found");
}
