//! Counts the instructions of the hot paths and compares them with what is recorded.
//!
//! `cargo bench --bench instructions` fails if a path takes a tenth more than `instructions.txt`
//! says; with `UPDATE_BASELINE=1` it writes that file. Unlike times, counts are the same on a busy
//! machine. Needs valgrind, under which this program starts itself.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

mod paths;

/// A path is run this often and twice as often; what it sets up once cancels out.
const TIMES: u64 = 50;

/// How much more than recorded is too much, in percent.
const TOLERANCE: u64 = 10;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<ExitCode> {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    if let [name, times] = arguments.as_slice() {
        let (_, path) = paths::PATHS.iter().find(|(it, _)| it == name).ok_or("no such path")?;
        path(times.parse()?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut counted = BTreeMap::new();
    for (name, _) in paths::PATHS {
        counted.insert(*name, (count(name, 2 * TIMES)? - count(name, TIMES)?) / TIMES);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt");
    if std::env::var_os("UPDATE_BASELINE").is_some() {
        fs::write(&file, written(&counted)?)?;
    }
    compare(&counted, &recorded(&file)?)
}

/// How many instructions the whole process takes.
fn count(name: &str, times: u64) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args([name, &times.to_string()])
        .output()
        .map_err(|error| format!("valgrind cannot be started ({error}); install it"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name}: {}: {told}", output.status).into());
    }
    // Its releases differ in how many spaces there are after the I.
    let refs = told.lines().find_map(|line| line.split_once("refs:"));
    let (_, count) = refs.ok_or_else(|| format!("valgrind counted nothing: {told}"))?;
    Ok(count.trim().replace(',', "").parse()?)
}

fn written(counted: &BTreeMap<&str, u64>) -> Result<String> {
    let mut text =
        String::from("# Instructions; written by UPDATE_BASELINE=1, see instructions.rs\n");
    for (name, count) in counted {
        writeln!(text, "{count} {name}")?;
    }
    Ok(text)
}

fn recorded(file: &PathBuf) -> Result<BTreeMap<String, u64>> {
    let text = fs::read_to_string(file)?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let entry = |line: &str| {
        let (count, name) = line.split_once(' ').ok_or("a line has no name")?;
        Ok((name.to_owned(), count.parse()?))
    };
    lines.map(entry).collect()
}

fn compare(counted: &BTreeMap<&str, u64>, recorded: &BTreeMap<String, u64>) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for (name, &count) in counted {
        let before = *recorded.get(*name).ok_or_else(|| format!("{name} is not recorded"))?;
        let percent = count * 100 / before.max(1);
        println!("{count:>12} {percent:>5} %  {name}");
        if percent > 100 + TOLERANCE {
            println!("             too many: {before} are recorded; UPDATE_BASELINE=1 accepts it");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}
