//! The demonstration: a payments service as two processes on a real Kafka, one of which is killed
//! three times in the middle; then an independent reader counts what became visible.
//!
//! `make demo` runs it.

mod broker;
mod check;
mod kills;
mod process;

use std::error::Error;
use std::time::{Duration, Instant};

use countersign::inspection::{self, text};
use countersign_testkit::broker::LocalKafka;
use indicatif::{ProgressBar, ProgressStyle};

use check::Check;
use kills::Kill;
use process::Payments;

/// How many orders there are.
const ORDERS: u64 = 200_000;

/// Where in the middle the kills are.
const KILLS: [u64; 3] = [ORDERS / 5, ORDERS * 2 / 5, ORDERS * 3 / 5];

/// How long any step may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    eprintln!("starting a real Kafka ...");
    let kafka = LocalKafka::start()?;
    broker::create_topics(&kafka)?;
    broker::load_orders(&kafka, &bar("loading orders"))?;

    let stores = tempfile::tempdir()?;
    let progress = bar("processing");
    let mut victim = Payments::start(&kafka, stores.path(), "a")?;
    // The one that is killed has work from the first kill on.
    broker::wait_for(&kafka, 1, &progress)?;
    let mut other = Payments::start(&kafka, stores.path(), "b")?;
    let mut kills: Vec<Kill> = Vec::new();
    for at in KILLS {
        broker::wait_for(&kafka, at, &progress)?;
        victim.kill()?;
        let kill = Kill::look(at, &victim)?;
        progress.println(format!("kill -9 of instance a at {at}: {kill}"));
        kills.push(kill);
        victim = Payments::start(&kafka, stores.path(), "a")?;
    }
    broker::wait_for(&kafka, ORDERS, &progress)?;
    victim.finish()?;
    other.finish()?;
    progress.finish_and_clear();

    let check = Check::read(&kafka, ORDERS)?;
    println!("{check}");
    println!("{}", kills::table(&kills, &victim)?);
    if let Some((partition, offset)) = kills.iter().rev().find_map(Kill::interrupted) {
        println!("countersign why orders/{partition}@{offset}\n");
        let report = inspection::why(&victim.journal()?, "orders", partition, offset)?;
        let mut story = String::new();
        text::write_why(&mut story, &report)?;
        println!("{story}");
    }
    eprintln!("took {:.0} s", started.elapsed().as_secs_f64());
    if check.is_exact() {
        Ok(())
    } else {
        Err("the outputs are not exactly those of the orders".into())
    }
}

fn bar(what: &'static str) -> ProgressBar {
    let template = "{prefix:>15} [{bar:40}] {human_pos}/{human_len} ({per_sec}, {elapsed})";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(ORDERS).with_style(style.progress_chars("=> ")).with_prefix(what)
}
