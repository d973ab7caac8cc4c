//! Goal: the style that no compiler checks holds, and the pure crate stays pure.
//! Method: every source file is read; comments and literals are blanked before code is judged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 400;
const LINE_COLUMNS_MAX: usize = 100;

/// What may break a rule: the file, the rule, and why.
const EXEMPT: &[(&str, Rule, &str)] =
    &[("tests/tidy.rs", Rule::Word, "it names the words that it looks for")];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    FunctionLines,
    FileLines,
    LineColumns,
    Ascii,
    Word,
    DeadFile,
}

struct Source {
    /// From the repository's root, with forward slashes.
    path: String,
    text: String,
}

struct Problem {
    path: String,
    line: usize,
    rule: Rule,
    what: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut open: Vec<PathBuf> = vec![root().to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the tree can be read") {
            let path = entry.expect("a directory of the tree can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                open.push(path);
            } else if path.is_file() && path.extension().is_some_and(|ext| ext == "rs") {
                let relative = path.strip_prefix(root()).expect("it was found below the root");
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                let path = relative.to_string_lossy().replace('\\', "/");
                sources.push(Source { path, text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

impl Source {
    /// Whether all of it is there for tests only.
    fn is_test(&self) -> bool {
        let folder = |name| self.path.starts_with(name) || self.path.contains(&format!("/{name}"));
        folder("tests/") || folder("benches/") || self.path.ends_with("_test.rs")
    }

    /// The lines before the unit tests, with comments and literals blanked.
    fn code(&self) -> String {
        let text = blank(&self.text);
        if self.is_test() {
            return text;
        }
        text.split_once("#[cfg(test)]\nmod ").map_or(text.as_str(), |(code, _)| code).to_owned()
    }

    fn problem(&self, line: usize, rule: Rule, what: impl Into<String>) -> Problem {
        Problem { path: self.path.clone(), line, rule, what: what.into() }
    }
}

fn check_lines(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, line) in source.text.lines().enumerate() {
        if let Some(odd) = line.chars().find(|c| !c.is_ascii()) {
            problems.push(source.problem(at + 1, Rule::Ascii, format!("{odd:?} is not ASCII")));
        }
        let columns = line.chars().count();
        if columns > LINE_COLUMNS_MAX {
            problems.push(source.problem(at + 1, Rule::LineColumns, format!("{columns} columns")));
        }
        problems.extend(banned(line).map(|word| source.problem(at + 1, Rule::Word, word)));
    }
    problems
}

/// The first word in a line that must not be committed.
fn banned(line: &str) -> Option<&'static str> {
    let unfinished = ["TODO", "FIXME", "XXX", "HACK"];
    let word = |word: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
    };
    if let Some(found) = unfinished.into_iter().find(|name| word(name)) {
        let has_issue = line.split_once(found).is_some_and(|(_, rest)| rest.starts_with("(#"));
        return (!has_issue).then_some(found);
    }
    let macros = [("dbg", "dbg!"), ("todo", "todo!"), ("unimplemented", "unimplemented!")];
    macros.into_iter().find(|(name, call)| word(name) && line.contains(call)).map(|(_, call)| call)
}

fn check_sizes(source: &Source) -> Vec<Problem> {
    if source.is_test() {
        return Vec::new();
    }
    let code = source.code();
    let lines = code.lines().count();
    let mut problems = Vec::new();
    if lines > FILE_LINES_MAX {
        problems.push(source.problem(1, Rule::FileLines, format!("{lines} lines without tests")));
    }
    for (name, first, lines) in functions(&code) {
        if lines > FUNCTION_LINES_MAX {
            let what = format!("fn {name} has {lines} lines");
            problems.push(source.problem(first, Rule::FunctionLines, what));
        }
    }
    problems
}

/// The functions with a body: name, first line from 1, number of lines.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let follows_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if follows_word || name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(code, at) {
            let (first, last) = (line_of(at), line_of(end));
            found.push((name, first, last - first + 1));
        }
    }
    found
}

/// Where the body of the function that begins at `at` ends; `None` if it has no body.
fn body_end(code: &str, at: usize) -> Option<usize> {
    let (mut brackets, mut braces) = (0_u32, 0_u32);
    for (offset, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.checked_sub(1)?,
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 {
                    return Some(at + offset);
                }
            }
            _ => {}
        }
    }
    None
}

/// Replaces comments and the contents of literals by blanks; lines stay.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = comment_len(rest).or_else(|| literal_len(rest, &code));
        let len = skipped.unwrap_or(c.len_utf8()).min(rest.len());
        let (taken, after) = rest.split_at(len);
        if skipped.is_some() {
            code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            code.push(c);
        }
        rest = after;
    }
    code
}

fn comment_len(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let mut depth = 0_u32;
    let mut at = 0;
    while at < rest.len() {
        let (step, change) = match rest.as_bytes().get(at..at + 2) {
            Some(b"/*") => (2, 1),
            Some(b"*/") => (2, -1),
            Some(_) | None => (1, 0),
        };
        at += step;
        depth = depth.saturating_add_signed(change);
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

fn literal_len(rest: &str, before: &str) -> Option<usize> {
    if let Some(inner) = rest.strip_prefix('"') {
        return Some(1 + quoted_len(inner, '"'));
    }
    if let Some(inner) = rest.strip_prefix('\'') {
        // Without a closing quote right after the next character it is a lifetime.
        let mut chars = inner.chars();
        let is_char = chars.next()? == '\\' || chars.next()? == '\'';
        return is_char.then(|| 1 + quoted_len(inner, '\''));
    }
    let in_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let hashes = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let quote = hashes.trim_start_matches('#');
    let count = hashes.len() - quote.len();
    let inner = quote.strip_prefix('"').filter(|_| !in_word)?;
    let end = format!("\"{}", "#".repeat(count));
    let inner_len = inner.find(&end).map_or(inner.len(), |at| at + end.len());
    Some(rest.len() - inner.len() + inner_len)
}

/// How long a literal is after its opening quote, with the closing one.
fn quoted_len(inner: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        if !escaped && c == quote {
            return at + 1;
        }
        escaped = !escaped && c == '\\';
    }
    inner.len()
}

/// Files of `src/` that no `mod` declares are not compiled, and nobody notices.
fn check_dead_files(sources: &[Source]) -> Vec<Problem> {
    let crate_of = |path: &str| path.split_once("src/").map(|(name, _)| name.to_owned());
    let is_dead = |source: &&Source| {
        let Some(home) = crate_of(&source.path).filter(|_| !source.is_test()) else { return false };
        let path = source.path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
        let name = path.rsplit('/').next().unwrap_or(path);
        if ["lib", "main"].contains(&name) || source.path.contains("src/bin/") {
            return false;
        }
        let declared = format!("mod {name};");
        let mut siblings = sources.iter().filter(|s| crate_of(&s.path).as_ref() == Some(&home));
        !siblings.any(|sibling| sibling.text.contains(&declared))
    };
    let dead = sources.iter().filter(is_dead);
    dead.map(|source| source.problem(1, Rule::DeadFile, "no `mod` declares it")).collect()
}

#[test]
fn sources_keep_to_the_style() {
    let sources = sources();
    assert!(sources.iter().any(|s| s.path == "statemachine/src/lib.rs"), "the tree was not found");
    let mut problems = check_dead_files(&sources);
    for source in &sources {
        problems.extend(check_lines(source));
        problems.extend(check_sizes(source));
    }
    let mut used = BTreeSet::new();
    problems.retain(|problem| {
        let exempt = EXEMPT.iter().find(|(path, rule, _)| (*path, *rule) == problem.key());
        used.extend(exempt.map(|(path, rule, _)| (*path, *rule)));
        exempt.is_none()
    });
    let shown: Vec<String> = problems.iter().map(Problem::show).collect();
    assert!(shown.is_empty(), "\n{}", shown.join("\n"));
    for (path, rule, reason) in EXEMPT {
        assert!(used.contains(&(*path, *rule)), "{path} needs no exemption any more ({reason})");
    }
}

impl Problem {
    fn key(&self) -> (&str, Rule) {
        (&self.path, self.rule)
    }

    fn show(&self) -> String {
        format!("{}:{}: {:?}: {}", self.path, self.line, self.rule, self.what)
    }
}

/// The names in one section of a `Cargo.toml`.
fn dependencies(manifest: &str, section: &str) -> BTreeSet<String> {
    let head = format!("[{section}]");
    let lines = manifest.lines().skip_while(|line| line.trim() != head).skip(1);
    let body = lines.take_while(|line| !line.starts_with('['));
    let name = |line: &str| line.split(['.', '=', ' ']).next().unwrap_or_default().to_owned();
    body.map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(name)
        .collect()
}

/// Without a clock, a random source or I/O among its dependencies it cannot use one.
#[test]
fn the_state_machine_depends_on_serde_and_thiserror_only() {
    let manifest = fs::read_to_string(root().join("statemachine/Cargo.toml")).unwrap();
    let allowed = ["serde", "thiserror"].map(str::to_owned);
    assert_eq!(dependencies(&manifest, "dependencies"), BTreeSet::from(allowed));
    for form in ["[target.", "[dependencies.", "[build-dependencies"] {
        assert!(!manifest.contains(form), "{form} hides dependencies from this test");
    }
}

#[test]
fn the_state_machine_has_no_clock_and_no_unsafe_code() {
    let clippy = fs::read_to_string(root().join("statemachine/clippy.toml")).unwrap();
    for banned in ["std::time::Instant::now", "std::time::SystemTime::now"] {
        assert!(clippy.contains(&format!("path = \"{banned}\"")), "{banned} is not banned");
    }
    for source in sources().iter().filter(|s| s.path.starts_with("statemachine/src/")) {
        let code = source.code();
        for io in ["std::fs", "std::net", "std::thread", "std::env", "async ", "Instant"] {
            assert!(!code.contains(io), "{} uses {io}", source.path);
        }
    }
    let lib = fs::read_to_string(root().join("statemachine/src/lib.rs")).unwrap();
    assert!(lib.contains("#![forbid(unsafe_code)]"));
}

/// Programs that embed the library do not pay for a command line.
#[test]
fn drawing_and_parsing_of_arguments_stay_in_the_binary() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let library = dependencies(&manifest, "dependencies");
    assert!(library.contains("rdkafka"), "the section was not found");
    for name in ["clap", "indicatif", "tracing-subscriber", "toml", "countersign-testkit"] {
        assert!(!library.contains(name), "{name} reaches embedders");
    }
}

#[test]
fn literals_and_comments_are_not_code() {
    let text = "a(\"{ // \\\" }\"); // }\nlet c = '{'; /* { /* } */ */ fn<'a>(r#\"}\"#, b'}')";
    let code = "a(           );     \nlet c =    ;                 fn<'a>(      , b   )";
    assert_eq!(blank(text), code);
}

#[test]
fn functions_are_measured_from_signature_to_brace() {
    let two = "trait T {\n fn none(x: [u8; 2]);\n fn two() {\n }\n}\n";
    let last = "fn last(\n f: fn(u8),\n) {\n {\n }\n}";
    let code = &[two, last].concat();
    let found = [("two".to_owned(), 3, 2), ("last".to_owned(), 6, 6)];
    assert_eq!(functions(code), found);
}

#[test]
fn unfinished_work_needs_an_issue() {
    assert_eq!(banned("// TODO later"), Some("TODO"));
    assert_eq!(banned("// TODO(#12): later"), None);
    assert_eq!(banned("    dbg!(x);"), Some("dbg!"));
    assert_eq!(banned("todo!()"), Some("todo!"));
    assert_eq!(banned("let todos = mastodon;"), None);
}
