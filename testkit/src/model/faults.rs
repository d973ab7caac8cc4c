//! What goes wrong: scripted call by call, or drawn from a seeded generator.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The requests that a fault can strike, in Kafka's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// `Producer::init`.
    InitProducerId,
    /// The first half of `Producer::send_offsets`.
    AddOffsetsToTxn,
    /// The second half of `Producer::send_offsets`.
    TxnOffsetCommit,
    /// `Producer::commit` and `Producer::abort`.
    EndTxn,
    /// Records on their way, with the partitions that are added to the transaction for them.
    /// A lost request or reply fails the delivery report.
    Produce,
    /// The coordinator writing commit or abort markers.
    WriteTxnMarkers,
    /// `Consumer::poll`.
    Fetch,
    /// `Admin::committed`.
    OffsetFetch,
    /// `Admin::log_ranges`.
    ListOffsets,
    /// `Admin::topics` and `Admin::cluster_id`.
    Metadata,
    /// `Consumer::assign`.
    Assign,
    /// `Producer::flush`; scripted only.
    Flush,
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request never arrives; the caller gets a timeout. A poll reports a passing fault.
    RequestLost,
    /// The request is executed; the caller gets a timeout.
    ReplyLost,
    /// The client retries silently and gets `Ok`; the first copy arrives `late` after it was sent.
    Retried {
        /// When the first copy arrives; zero: at once, only its reply was lost.
        late: Duration,
    },
    /// As `Retried`, but the first copy stays away until [`release`](super::ModelKafka::release).
    Held,
    /// The request arrives that much later.
    Delay(Duration),
    /// The coordinator is loading or moving; the caller gets a retriable error.
    CoordinatorNotAvailable,
    /// The client crashes before the request leaves it; the call never returns.
    CrashBefore,
    /// The client crashes when the request has been executed; the call never returns.
    CrashAfter,
    /// On [`Call::Assign`]: partitions that stay deliver their last record again.
    Repeat,
    /// The call ignores its time-out: its request leaves that much later, and it returns with the
    /// answer. With [`Duration::MAX`] it never returns, and nothing is sent.
    Hang(Duration),
    /// The request is executed, and the call never returns.
    HangAfter,
    /// The call panics. The panic hook is not run: it would fill the screen.
    Panic,
}

impl Fault {
    /// What it is called in counts.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestLost => "request lost",
            Self::ReplyLost => "reply lost",
            Self::Retried { .. } => "retried",
            Self::Held => "held",
            Self::Delay(_) => "delay",
            Self::CoordinatorNotAvailable => "coordinator not available",
            Self::CrashBefore => "crash before",
            Self::CrashAfter => "crash after",
            Self::Repeat => "repeat",
            Self::Hang(Duration::MAX) => "hang",
            Self::Hang(_) => "hang for long",
            Self::HangAfter => "hang after",
            Self::Panic => "panic",
        }
    }
}

/// How often seeded faults strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultRate {
    /// Calls in a thousand that are struck.
    pub per_mille: u32,
    /// The longest delay, also of a late copy.
    pub longest: Duration,
}

/// The plan of faults: scripted ones first, then seeded ones.
#[derive(Debug)]
pub struct Faults {
    scripted: BTreeMap<Call, VecDeque<Option<Fault>>>,
    rng: StdRng,
    rate: Option<FaultRate>,
    struck: BTreeMap<(Call, &'static str), u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

impl Faults {
    /// Nothing goes wrong except what is scripted later.
    pub fn none() -> Self {
        Self {
            scripted: BTreeMap::new(),
            rng: StdRng::seed_from_u64(0),
            rate: None,
            struck: BTreeMap::new(),
        }
    }

    /// Strikes calls at random.
    pub fn seeded(rng: StdRng, rate: FaultRate) -> Self {
        Self { scripted: BTreeMap::new(), rng, rate: Some(rate), struck: BTreeMap::new() }
    }

    /// Strikes the next call of this kind that has no scripted fault yet.
    pub fn script(&mut self, call: Call, fault: Fault) {
        self.scripted.entry(call).or_default().push_back(Some(fault));
    }

    /// Strikes the call of this kind after `calls` further ones that go well.
    pub fn script_after(&mut self, call: Call, calls: usize, fault: Fault) {
        let script = self.scripted.entry(call).or_default();
        script.extend(std::iter::repeat_n(None, calls));
        script.push_back(Some(fault));
    }

    /// How often each kind of call was struck by each kind of fault.
    pub fn struck(&self) -> &BTreeMap<(Call, &'static str), u64> {
        &self.struck
    }

    /// Keeps count beyond a change of plan.
    pub(super) fn count_on(&mut self, former: &Self) {
        self.struck.clone_from(&former.struck);
    }

    pub(super) fn next(&mut self, call: Call) -> Option<Fault> {
        let fault = self.plan(call)?;
        *self.struck.entry((call, fault.name())).or_default() += 1;
        Some(fault)
    }

    fn plan(&mut self, call: Call) -> Option<Fault> {
        if let Some(planned) = self.scripted.get_mut(&call).and_then(VecDeque::pop_front) {
            return planned;
        }
        let rate = self.rate.filter(|_| call != Call::Flush)?;
        if self.rng.random_range(0..1000) >= rate.per_mille {
            return None;
        }
        let longest_ms = u64::try_from(rate.longest.as_millis()).unwrap_or(u64::MAX).max(1);
        let duration = Duration::from_millis(self.rng.random_range(0..=longest_ms));
        Some(self.draw(call, duration))
    }

    /// Draws only faults that the call can meet.
    fn draw(&mut self, call: Call, duration: Duration) -> Fault {
        let kinds = match call {
            Call::WriteTxnMarkers => 1,
            Call::Produce => 3,
            Call::Fetch | Call::ListOffsets | Call::Metadata => 2,
            Call::InitProducerId | Call::OffsetFetch => 4,
            Call::AddOffsetsToTxn | Call::TxnOffsetCommit | Call::EndTxn => 5,
            Call::Assign => return Fault::Repeat,
            Call::Flush => return Fault::Hang(duration),
        };
        match self.rng.random_range(0..kinds) {
            0 => Fault::Delay(duration),
            1 => Fault::RequestLost,
            2 => Fault::ReplyLost,
            3 => Fault::CoordinatorNotAvailable,
            _ => Fault::Retried { late: duration },
        }
    }

    /// librdkafka's retry backoff: 0.8 to 1.2 of the setting.
    pub(super) fn backoff(&mut self, base: Duration) -> Duration {
        base * self.rng.random_range(800..=1200) / 1000
    }
}
