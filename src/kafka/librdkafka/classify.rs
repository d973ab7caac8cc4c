//! One place that says what an error of librdkafka means.

use countersign_statemachine::Disposition;
use rdkafka::error::{KafkaError as BindingError, RDKafkaErrorCode as Code};

use crate::kafka::{ErrorKind, KafkaError};

/// An error as librdkafka reports it: a code, three flags and its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Kafka's or librdkafka's error code.
    pub(super) code: Code,
    /// The client is dead.
    pub(super) fatal: bool,
    /// The transaction must be aborted.
    pub(super) abortable: bool,
    /// The call may be made again.
    pub(super) retriable: bool,
    /// librdkafka's words.
    pub(super) message: String,
}

impl Failure {
    /// An error that came as a code alone.
    pub(super) fn of(code: Code, message: impl Into<String>) -> Self {
        Self { code, fatal: false, abortable: false, retriable: false, message: message.into() }
    }
}

/// What an error without flags means; it depends on where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unflagged {
    /// A transactional call: `rdkafka.h` says to treat it as fatal.
    Fatal,
    /// A record that is not in the transaction, although a commit would succeed.
    Abortable,
    /// A question, or an event of a client that goes on by itself.
    Retriable,
}

/// Classes an error in the order that `rdkafka.h` prescribes: fatal, abortable, retriable.
///
/// Missing rights and wrong settings come before all of them, since no client can do better.
pub(super) fn classify(call: &'static str, failure: Failure, unflagged: Unflagged) -> KafkaError {
    let kind = kind(failure.code);
    KafkaError::new(call, kind, disposition(kind, &failure, unflagged), failure.message)
}

fn disposition(kind: ErrorKind, failure: &Failure, unflagged: Unflagged) -> Disposition {
    if matches!(kind, ErrorKind::NotAuthorized | ErrorKind::Config) {
        Disposition::Permanent
    } else if kind == ErrorKind::Fenced && (failure.fatal || !failure.abortable) {
        Disposition::Fenced
    } else if failure.fatal || failure.code == Code::Fatal {
        Disposition::Fatal
    } else if failure.abortable {
        Disposition::Abortable
    } else if failure.retriable || kind == ErrorKind::QueueFull {
        Disposition::Retriable
    } else {
        match unflagged {
            Unflagged::Fatal => Disposition::Fatal,
            Unflagged::Abortable => Disposition::Abortable,
            Unflagged::Retriable => Disposition::Retriable,
        }
    }
}

/// The kind of an error code. Codes that the processor does not tell apart are `Other`.
pub(super) fn kind(code: Code) -> ErrorKind {
    match code {
        Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::MessageTimedOut
        | Code::TimedOutQueue => ErrorKind::Timeout,
        Code::UnstableOffsetCommit => ErrorKind::Pending,
        Code::BrokerTransportFailure
        | Code::Resolve
        | Code::NetworkException
        | Code::BrokerNotAvailable => ErrorKind::Transport,
        Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::CoordinatorLoadInProgress
        | Code::WaitingForCoordinator => ErrorKind::Coordinator,
        Code::AllBrokersDown => ErrorKind::AllBrokersDown,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::DelegationTokenAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::Authentication => ErrorKind::NotAuthorized,
        Code::InvalidArgument
        | Code::InvalidConfig
        | Code::InvalidTransactionTimeout
        | Code::InvalidSessionTimeout
        | Code::InvalidGroupId
        | Code::InconsistentGroupProtocol
        | Code::UnsupportedAssignor
        | Code::UnsupportedFeature
        | Code::UnsupportedVersion
        | Code::SSL => ErrorKind::Config,
        Code::QueueFull => ErrorKind::QueueFull,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            ErrorKind::TooLarge
        }
        Code::InvalidRecord | Code::InvalidTimestamp | Code::PolicyViolation => ErrorKind::Rejected,
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId
        | Code::InvalidTopic => ErrorKind::UnknownTopic,
        Code::UnknownPartition => ErrorKind::UnknownPartition,
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => ErrorKind::Fenced,
        Code::FencedInstanceId | Code::UnreleasedInstanceId => ErrorKind::FencedInstance,
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::RebalanceInProgress
        | Code::StaleMemberEpoch
        | Code::FencedMemberEpoch => ErrorKind::StaleGeneration,
        Code::InvalidTransactionalState => ErrorKind::InvalidTransactionState,
        Code::PollExceeded => ErrorKind::PollExceeded,
        _ => ErrorKind::Other,
    }
}

/// Classes an error of the safe binding, which keeps the code but not always the flags.
pub(super) fn classify_binding(call: &'static str, error: &BindingError) -> KafkaError {
    match error {
        BindingError::ClientConfig(..) | BindingError::ClientCreation(_) | BindingError::Nul(_) => {
            KafkaError::new(call, ErrorKind::Config, Disposition::Permanent, error.to_string())
        }
        BindingError::Transaction(flags) => {
            let failure = Failure {
                code: flags.code(),
                fatal: flags.is_fatal(),
                abortable: flags.txn_requires_abort(),
                retriable: flags.is_retriable(),
                message: flags.string(),
            };
            classify(call, failure, Unflagged::Fatal)
        }
        BindingError::MessageConsumptionFatal(code) => {
            let failure = Failure { fatal: true, ..Failure::of(*code, error.to_string()) };
            classify(call, failure, Unflagged::Fatal)
        }
        BindingError::MessageProduction(code) => {
            classify(call, Failure::of(*code, error.to_string()), Unflagged::Abortable)
        }
        other => {
            let code = other.rdkafka_error_code().unwrap_or(Code::Fail);
            classify(call, Failure::of(code, other.to_string()), Unflagged::Retriable)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flagged(code: Code, fatal: bool, abortable: bool, retriable: bool) -> Failure {
        Failure { code, fatal, abortable, retriable, message: "words".into() }
    }

    #[test]
    fn flags_are_read_in_librdkafkas_order() {
        // (code, fatal, abortable, retriable) -> (kind, disposition)
        let table = [
            (
                Code::OperationTimedOut,
                (false, false, true),
                ErrorKind::Timeout,
                Disposition::Retriable,
            ),
            (Code::Fenced, (true, false, false), ErrorKind::Fenced, Disposition::Fenced),
            (Code::ProducerFenced, (true, true, true), ErrorKind::Fenced, Disposition::Fenced),
            (Code::Inconsistent, (false, true, true), ErrorKind::Other, Disposition::Abortable),
            (Code::Inconsistent, (true, true, true), ErrorKind::Other, Disposition::Fatal),
            (Code::Conflict, (false, false, true), ErrorKind::Other, Disposition::Retriable),
            (Code::State, (false, false, false), ErrorKind::Other, Disposition::Fatal),
        ];
        for (code, (fatal, abortable, retriable), kind, disposition) in table {
            let error = classify(
                "commit_transaction",
                flagged(code, fatal, abortable, retriable),
                Unflagged::Fatal,
            );
            assert_eq!((error.kind, error.disposition), (kind, disposition), "{code:?}");
        }
    }

    #[test]
    fn rights_and_settings_are_permanent_whatever_the_flags() {
        let codes = [
            (Code::TopicAuthorizationFailed, ErrorKind::NotAuthorized),
            (Code::GroupAuthorizationFailed, ErrorKind::NotAuthorized),
            (Code::TransactionalIdAuthorizationFailed, ErrorKind::NotAuthorized),
            (Code::ClusterAuthorizationFailed, ErrorKind::NotAuthorized),
            (Code::Authentication, ErrorKind::NotAuthorized),
            (Code::SaslAuthenticationFailed, ErrorKind::NotAuthorized),
            (Code::InvalidTransactionTimeout, ErrorKind::Config),
            (Code::UnsupportedFeature, ErrorKind::Config),
            (Code::InvalidArgument, ErrorKind::Config),
        ];
        for (code, kind) in codes {
            for flags in [(true, false, false), (false, true, false), (false, false, true)] {
                let failure = flagged(code, flags.0, flags.1, flags.2);
                let error = classify("init_transactions", failure, Unflagged::Fatal);
                let got = (error.kind, error.disposition);
                assert_eq!(got, (kind, Disposition::Permanent), "{code:?}");
            }
        }
    }

    #[test]
    fn codes_have_kinds() {
        let table = [
            (Code::MessageTimedOut, ErrorKind::Timeout),
            (Code::UnstableOffsetCommit, ErrorKind::Pending),
            (Code::BrokerTransportFailure, ErrorKind::Transport),
            (Code::Resolve, ErrorKind::Transport),
            (Code::AllBrokersDown, ErrorKind::AllBrokersDown),
            (Code::QueueFull, ErrorKind::QueueFull),
            (Code::MessageSizeTooLarge, ErrorKind::TooLarge),
            (Code::UnknownTopicOrPartition, ErrorKind::UnknownTopic),
            (Code::UnknownPartition, ErrorKind::UnknownPartition),
            (Code::Fenced, ErrorKind::Fenced),
            (Code::ProducerFenced, ErrorKind::Fenced),
            (Code::InvalidProducerEpoch, ErrorKind::Fenced),
            (Code::FencedInstanceId, ErrorKind::FencedInstance),
            (Code::IllegalGeneration, ErrorKind::StaleGeneration),
            (Code::UnknownMemberId, ErrorKind::StaleGeneration),
            (Code::StaleMemberEpoch, ErrorKind::StaleGeneration),
            (Code::InvalidTransactionalState, ErrorKind::InvalidTransactionState),
            (Code::PollExceeded, ErrorKind::PollExceeded),
            (Code::InvalidProducerIdMapping, ErrorKind::Other),
        ];
        for (code, expected) in table {
            assert_eq!(kind(code), expected, "{code:?}");
        }
    }

    #[test]
    fn without_flags_the_place_decides() {
        let state = || Failure::of(Code::State, "words");
        let disposition = |unflagged| classify("call", state(), unflagged).disposition;
        assert_eq!(disposition(Unflagged::Fatal), Disposition::Fatal);
        assert_eq!(disposition(Unflagged::Abortable), Disposition::Abortable);
        assert_eq!(disposition(Unflagged::Retriable), Disposition::Retriable);
        let full = classify("produce", Failure::of(Code::QueueFull, ""), Unflagged::Abortable);
        assert_eq!(full.disposition, Disposition::Retriable);
        let fatal = classify("produce", Failure::of(Code::Fatal, ""), Unflagged::Abortable);
        assert_eq!(fatal.disposition, Disposition::Fatal);
    }

    #[test]
    fn the_bindings_errors_keep_their_codes() {
        let flush = BindingError::Flush(Code::OperationTimedOut);
        let error = classify_binding("flush", &flush);
        assert_eq!((error.kind, error.disposition), (ErrorKind::Timeout, Disposition::Retriable));
        let error = classify_binding("new", &BindingError::ClientCreation("words".into()));
        assert_eq!((error.kind, error.disposition), (ErrorKind::Config, Disposition::Permanent));
        assert!(error.message.contains("words"));
        let fatal = BindingError::MessageConsumptionFatal(Code::FencedInstanceId);
        let error = classify_binding("poll", &fatal);
        let expected = (ErrorKind::FencedInstance, Disposition::Fatal);
        assert_eq!((error.kind, error.disposition), expected);
    }
}
