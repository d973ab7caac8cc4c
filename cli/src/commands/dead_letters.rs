//! `countersign dead-letters`: what could not be handled, and why.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use countersign::dead_letter::LetterDisposition;
use countersign::kafka::TopicPartition;
use countersign::kafka::librdkafka::{ClusterConfig, ReadFrom, read_topic};

use super::{Format, Target};
use crate::failure::{self, Exit, Failure};
use crate::letters::{Filter, Letter, table, text};
use crate::settings::Settings;
use crate::stdout;
use crate::values::{Interval, Passed};

/// Look at dead letters: messages that could not be handled
///
/// Reads the topic as it is now; nothing is changed, and no group is joined.
#[derive(clap::Args)]
#[command(after_help = failure::HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    List(List),
    Show(Show),
}

/// Where Kafka is.
#[derive(clap::Args)]
struct Cluster {
    /// Where to find Kafka
    #[arg(long, value_name = "HOST:PORT[,..]")]
    brokers: Option<String>,
    /// Brokers and librdkafka's settings from the file of `countersign run`; flags win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any setting of librdkafka
    #[arg(short = 'X', long = "librdkafka", value_name = "SETTING=VALUE")]
    librdkafka: Vec<Passed>,
    /// How long Kafka may say nothing
    #[arg(long, value_name = "TIME", default_value = "30s")]
    patience: Interval,
    /// How it is written; json is one document per line for list
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// List dead letters, oldest first in each partition
#[derive(clap::Args)]
struct List {
    /// The topic of dead letters
    #[arg(value_name = "TOPIC")]
    topic: String,
    #[command(flatten)]
    cluster: Cluster,
    /// Only those from this topic, or this partition of it
    #[arg(long, value_name = "TOPIC[/PARTITION]")]
    from: Option<String>,
    /// Only those of this consumer group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Only those that are here for this reason, such as `CLIENT_REJECTED`
    #[arg(long, value_name = "WORD")]
    disposition: Option<LetterDisposition>,
    /// Only those whose last error is of this class: the handler's name for it, or error, panic or
    /// deadline
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// Only those whose error has these words
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only those with this key
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// Only those that failed last within this time, such as 1h
    #[arg(long, value_name = "TIME")]
    since: Option<Interval>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

/// Show one dead letter with everything in it
#[derive(clap::Args)]
struct Show {
    /// The letter, such as dead-letters/0@17
    #[arg(value_name = "TOPIC/PARTITION@OFFSET")]
    letter: Target,
    #[command(flatten)]
    cluster: Cluster,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.verb {
        Verb::List(list) => list.run(),
        Verb::Show(show) => show.run(),
    }
}

impl Cluster {
    fn config(&self, topic: &str) -> Result<ClusterConfig, Failure> {
        let file = self.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
        let brokers = self.brokers.clone().or(file.brokers).ok_or_else(|| {
            Failure::usage("missing: --brokers; give it as a flag, or in the file of --config")
        })?;
        // A name that brokers may grant rights to; the group itself is never joined.
        let mut config = ClusterConfig::new(brokers, "countersign-dead-letters", [topic]);
        let passed = [file.librdkafka, self.librdkafka.clone()].concat();
        config.extra = passed.into_iter().map(|it| (it.name, it.value)).collect();
        config.check().map_err(|error| Failure::usage(error.to_string()))?;
        Ok(config)
    }

    fn patience(&self) -> Duration {
        self.patience.0
    }
}

impl List {
    fn filter(&self) -> Result<Filter, Failure> {
        let from = self.from.as_deref().map(|from| match from.rsplit_once('/') {
            None => Ok((from.to_owned(), None)),
            Some((topic, partition)) => match partition.parse() {
                Ok(number) => Ok((topic.to_owned(), Some(number))),
                Err(_) => Err(Failure::usage(format!(
                    "--from {from:?}: name a topic, or a partition as in orders/3"
                ))),
            },
        });
        Ok(Filter {
            from: from.transpose()?,
            group: self.group.clone(),
            disposition: self.disposition,
            class: self.class.clone(),
            error: self.error.clone(),
            key: self.key.clone(),
            since: self.since.map(|since| since.0),
        })
    }

    fn run(&self) -> Result<(), Failure> {
        let (config, filter) = (self.cluster.config(&self.topic)?, self.filter()?);
        let from = ReadFrom::Start(self.topic.clone());
        let (mut letters, mut others) = (Vec::new(), 0_u64);
        let cut = read_topic(&config, &from, self.cluster.patience(), |record| {
            let Some(letter) = Letter::of(record) else {
                others += 1;
                return ControlFlow::Continue(());
            };
            if filter.takes(&letter) {
                if letters.len() == self.limit {
                    return ControlFlow::Break(());
                }
                letters.push(letter);
            }
            ControlFlow::Continue(())
        });
        let cut = cut.map_err(Failure::kafka)?.is_some();
        if cut {
            eprintln!("there are more than {}; see --limit and the filters", self.limit);
        }
        if others > 0 {
            eprintln!("{others} records of {} are no dead letters of countersign", self.topic);
        }
        match self.cluster.format {
            Format::Json => stdout::lines(&letters),
            Format::Table => stdout::write(&table(&letters)),
        }
    }
}

impl Show {
    fn run(&self) -> Result<(), Failure> {
        let Target { topic, partition, offset } = &self.letter;
        let config = self.cluster.config(topic)?;
        let from = ReadFrom::Offset(TopicPartition::new(topic.as_str(), *partition), *offset);
        let found = read_topic(&config, &from, self.cluster.patience(), |record| {
            ControlFlow::Break((record.offset() == *offset).then(|| Letter::of(record)))
        });
        let place = format!("{topic}/{partition}@{offset}");
        match found.map_err(Failure::kafka)?.flatten() {
            None => Err(Failure::new(Exit::Usage, format!("{place}: there is no record"))),
            Some(None) => {
                Err(Failure::new(Exit::Usage, format!("{place} is no dead letter of countersign")))
            }
            Some(Some(letter)) => match self.cluster.format {
                Format::Json => stdout::json(&letter),
                Format::Table => stdout::write(&text(&letter)),
            },
        }
    }
}
