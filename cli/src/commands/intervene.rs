//! `countersign skip`, `retry` and `dead-letter`: what is to become of one message.

use std::path::{Path, PathBuf};

use countersign::control::{
    Absent, AbsentError, Answer, AskError, Request, VERSION, Verb, Why, ask, intervene, record,
};
use countersign::kafka::librdkafka::ClusterConfig;
use countersign::store::open_sled_for_inspection;
use serde::Serialize;

use super::{Format, Target, journal};
use crate::failure::{Exit, Failure};
use crate::settings::Settings;
use crate::stdout;
use crate::values::{Interval, Passed};

/// The exit codes that these verbs have; all of them are in the help of the command.
macro_rules! help {
    ($verb:literal, $reason:literal) => {
        concat!(
            "Example:\n    countersign ",
            $verb,
            " orders/3@12345 --store invoicing-store \\\n        --reason '",
            $reason,
            "'\n\nWhile the message has an owner, it is done by the owner's next transaction; \
             --store finds the\nowner. While the group has no member at all, it is done by a \
             transaction of this command;\nthat needs --brokers, and --group or --store.\n\n\
             Exit codes:\n    0  done: committed, or due for a retry\n    2  usage or \
             configuration\n    3  Kafka cannot be reached, hangs, or does not authorise it\n    \
             4  store: missing, locked, or damaged\n    7  \
             refused: the message is in no state for it; nothing was done\n    8  owned \
             elsewhere: the owner is named, ask there; nothing was done\n    9  not known: no \
             answer came; order it again, and see"
        )
    };
}

pub(crate) const SKIP_HELP: &str = help!("skip", "the customer is gone, see ticket 4711");
pub(crate) const RETRY_HELP: &str = help!("retry", "the payment service is back");
pub(crate) const DEAD_LETTER_HELP: &str = help!("dead-letter", "amount is missing");

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The message, such as orders/3@12345
    #[arg(value_name = "TOPIC/PARTITION@OFFSET")]
    message: Target,
    /// Why: it is recorded, and a dead letter says it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who orders it [default: user and host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// The directory of the owner's store
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Where to find Kafka, for a group without members
    #[arg(long, value_name = "HOST:PORT[,..]")]
    brokers: Option<String>,
    /// The consumer group [default: that of the store]
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// The topic of dead letters, for a group without members
    #[arg(long, value_name = "TOPIC")]
    dead_letters: Option<String>,
    /// What the id of the transaction begins with, for a group without members
    #[arg(long, value_name = "TEXT")]
    transactional_id_prefix: Option<String>,
    /// The file of `countersign run`; flags win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any setting of librdkafka
    #[arg(short = 'X', long = "librdkafka", value_name = "SETTING=VALUE")]
    librdkafka: Vec<Passed>,
    /// How long to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "30s")]
    patience: Interval,
    /// How the answer is written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// By which way an order went.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Through {
    Owner,
    EmptyGroup,
}

#[derive(Serialize)]
struct Report<'a> {
    through: Through,
    #[serde(flatten)]
    answer: &'a Answer,
}

pub(crate) fn run(verb: Verb, args: &Args) -> Result<(), Failure> {
    let file = args.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let store = args.store.clone().or_else(|| file.store.clone());
    let request = args.request(verb);
    request.check().map_err(Failure::usage)?;
    if let Some(store) = &store {
        match ask(store, &request, args.patience.0) {
            Ok(answer) => return args.report(Through::Owner, &answer),
            Err(AskError::NoProcessor { .. }) => {}
            Err(error @ (AskError::NoAnswer { .. } | AskError::Lost(_))) => {
                return Err(Failure::new(Exit::Unknown, error));
            }
            Err(error) => return Err(Failure::usage(error)),
        }
    }
    let absent = args.absent(file, store.as_deref())?;
    let answer = match intervene(&absent, &request) {
        Ok(answer) => answer,
        Err(error) => error.answer(&request).ok_or_else(|| failure(error))?,
    };
    if let Some(store) = store.as_deref().filter(|_| answer.done)
        && let Err(error) = record(store, &request)
    {
        eprintln!("it is done, and not recorded in the store at {}: {error}", store.display());
    }
    args.report(Through::EmptyGroup, &answer)
}

impl Args {
    fn request(&self, verb: Verb) -> Request {
        let Target { topic, partition, offset } = self.message.clone();
        let by = self.by.clone().unwrap_or_else(whoami);
        let reason = self.reason.clone();
        Request { version: VERSION, verb, topic, partition, offset, by, reason }
    }

    /// What is needed for a group without members.
    fn absent(&self, file: Settings, store: Option<&Path>) -> Result<Absent, Failure> {
        let Some(brokers) = self.brokers.clone().or(file.brokers) else {
            let what = match store {
                Some(store) => format!("no processor runs on the store at {}", store.display()),
                None => "nothing tells where the owner is".to_owned(),
            };
            return Err(Failure::usage(format!(
                "{what}; name the --store of a running processor, or give --brokers: while the \
                 group has no member, it is done without an owner"
            )));
        };
        let group = match (self.group.clone().or(file.group), store) {
            (Some(group), _) => group,
            (None, Some(store)) => group_of(store)?,
            (None, None) => return Err(Failure::usage("missing: --group, or --store")),
        };
        let mut cluster =
            ClusterConfig::new(brokers, group.as_str(), [self.message.topic.as_str()]);
        let passed = [file.librdkafka, self.librdkafka.clone()].concat();
        cluster.extra = passed.into_iter().map(|it| (it.name, it.value)).collect();
        cluster.check().map_err(|error| Failure::usage(error.to_string()))?;
        let prefix = self.transactional_id_prefix.clone().or(file.transactional_id_prefix);
        let prefix = prefix.map(|prefix| format!("{prefix}-")).unwrap_or_default();
        Ok(Absent {
            cluster,
            transactional_id: format!("{prefix}{group}-operator"),
            dead_letters: self.dead_letters.clone().or(file.dead_letters),
            patience: self.patience.0,
        })
    }

    fn report(&self, through: Through, answer: &Answer) -> Result<(), Failure> {
        if self.format == Format::Json {
            stdout::json(&Report { through, answer })?;
        } else if answer.done {
            stdout::write(&format!("{}\n", answer.text))?;
        }
        if answer.done { Ok(()) } else { Err(declined(answer)) }
    }
}

fn group_of(store: &Path) -> Result<String, Failure> {
    // A store that is in use is another processor's without a socket.
    open_sled_for_inspection(store).map_err(Failure::from)?;
    Ok(journal(store)?.identity().group.clone())
}

/// The processor's answer, as the end of the command.
fn declined(answer: &Answer) -> Failure {
    let text = &answer.text;
    match (answer.why, &answer.owner) {
        (Some(Why::NotOwned), Some(owner)) => Failure::new(
            Exit::Elsewhere,
            format!("{text}: {owner} owns the partition; order it there, with the --store of that"),
        ),
        (Some(Why::NotOwned), None) => {
            Failure::new(Exit::Elsewhere, format!("{text}, and no member of the group owns it now"))
        }
        (Some(Why::Malformed), _) => Failure::usage(text),
        (Some(Why::Unknown), _) => Failure::new(Exit::Unknown, text),
        (_, _) => Failure::new(Exit::Refused, text),
    }
}

/// Kafka could not be asked, or not like this.
fn failure(error: AbsentError) -> Failure {
    match error {
        AbsentError::Kafka(error) => Failure::kafka(error),
        error => Failure::usage(error),
    }
}

/// Who is at the keyboard, for the record.
fn whoami() -> String {
    let user =
        ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let host = gethostname::gethostname();
    format!("{}@{}", user.unwrap_or_else(|| "unknown".to_owned()), host.to_string_lossy())
}
