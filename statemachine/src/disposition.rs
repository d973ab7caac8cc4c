//! What a failed call to Kafka leaves the caller to do.

/// The class of a failed call, from librdkafka's flags in the order that its `rdkafka.h`
/// prescribes: fatal (split into fenced and other), abortable, retriable, and all else as fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// The same call may be made again with the same arguments.
    Retriable,
    /// The transaction must be aborted; the producer stays usable.
    Abortable,
    /// Another producer has the id, or the coordinator gave the transaction up: this producer is
    /// dead, and nothing more is known.
    Fenced,
    /// This client is dead; a new one may work.
    Fatal,
    /// No client with these settings and rights can work.
    Permanent,
}
