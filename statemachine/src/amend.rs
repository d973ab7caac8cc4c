//! What an operator's order makes of the commit of a partition that nobody owns.
//!
//! The next owner learns everything from the commit: what is done from its offset and its completed
//! spans, and how often the rest has failed. So an order is carried out by writing the next commit
//! in the place of an owner. Everything that it does not change stays as it was.

use thiserror::Error;

use crate::metadata::{Author, CommitMetadata, MetadataError};
use crate::span::Span;
use crate::state::Verb;
use crate::worker::{Commit, Label};

/// A partition as it is without an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unowned {
    /// The stable commit.
    pub commit: Option<Commit>,
    /// The id of the topic of that name now.
    pub topic_id: [u8; 16],
    /// The first offset in the log.
    pub log_start: u64,
    /// The last stable offset.
    pub log_end: u64,
}

/// The next commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amended {
    /// The next offset to consume.
    pub offset: u64,
    /// The encoded [`CommitMetadata`].
    pub metadata: Vec<u8>,
    /// How often the message had failed.
    pub attempts: u32,
}

/// Why a commit is not amended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AmendError {
    /// The group has committed no offset of the partition.
    #[error("the group has no committed offset of this partition: start a processor first")]
    NoCommit,
    /// Another tool wrote it.
    #[error(
        "the committed offset {offset} was set by another tool, which knows nothing of single \
         messages: start a processor, which takes it as it is, or set it anew"
    )]
    Foreign {
        /// The committed offset.
        offset: u64,
    },
    /// The topic was deleted and created again.
    #[error("the committed offset {offset} belongs to a deleted topic of the same name")]
    OtherTopic {
        /// The committed offset.
        offset: u64,
    },
    /// The metadata cannot be read.
    #[error(
        "the metadata of the committed offset {offset} cannot be read: {source}; {}",
        source.advice()
    )]
    Metadata {
        /// The committed offset.
        offset: u64,
        /// Why.
        source: MetadataError,
    },
    /// The message is done.
    #[error("it is done already: the group's committed offset {offset} says so")]
    Done {
        /// The committed offset.
        offset: u64,
    },
    /// The message is no longer in the log.
    #[error("it is no longer in the log, which begins at {start}")]
    BelowStart {
        /// The first offset in the log.
        start: u64,
    },
    /// There is no such message yet.
    #[error("it is not there yet: the log ends at {end}")]
    BeyondEnd {
        /// The last stable offset.
        end: u64,
    },
    /// A commit that lists it is larger than a broker takes.
    #[error(
        "the commit has no room to list it: {bytes} bytes of metadata, and {limit} are allowed; \
         order it for the message at the committed offset first"
    )]
    NoRoom {
        /// How many bytes there would be.
        bytes: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Nothing is counted against the message.
    #[error("no failure is counted against it: the next owner tries it at once in any case")]
    NothingToForget,
}

/// Decides what is committed in the place of an owner. Whether there is a message at the offset is
/// for the caller to know.
///
/// # Errors
/// See [`AmendError`]; nothing may be committed then.
pub fn amend(
    unowned: &Unowned,
    verb: Verb,
    at: u64,
    author: Author,
    limit: usize,
) -> Result<Amended, AmendError> {
    let commit = unowned.commit.as_ref().ok_or(AmendError::NoCommit)?;
    let offset = commit.offset;
    let mut metadata = read(commit, unowned.topic_id)?;
    if at < offset || metadata.completed.iter().any(|span| span.contains(at)) {
        return Err(AmendError::Done { offset });
    }
    if at < unowned.log_start {
        return Err(AmendError::BelowStart { start: unowned.log_start });
    }
    if at >= unowned.log_end {
        return Err(AmendError::BeyondEnd { end: unowned.log_end });
    }
    metadata.prev = Some(std::mem::replace(&mut metadata.author, author));
    let failed = metadata.attempts.iter().find(|(of, _)| *of == at);
    let attempts = failed.map_or(0, |(_, attempts)| *attempts);
    let next = match verb {
        Verb::Retry => {
            let is_tried = metadata.trial.is_some_and(|trial| trial.offset == at);
            if attempts == 0 && !is_tried {
                return Err(AmendError::NothingToForget);
            }
            offset
        }
        Verb::Skip | Verb::DeadLetter => pass_over(&mut metadata.completed, offset, at),
    };
    metadata.attempts.retain(|(of, _)| *of != at && *of >= next);
    metadata.trial = metadata.trial.filter(|trial| trial.offset != at && trial.offset >= next);
    metadata.careful = metadata.careful.filter(|until| *until > next);
    if next != offset {
        // They are counted for one offset.
        metadata.takeovers = 0;
    }
    let metadata = metadata.encode(next);
    if metadata.len() > limit {
        return Err(AmendError::NoRoom { bytes: metadata.len(), limit });
    }
    Ok(Amended { offset: next, metadata, attempts })
}

fn read(commit: &Commit, topic_id: [u8; 16]) -> Result<CommitMetadata, AmendError> {
    let offset = commit.offset;
    let bytes = match &commit.label {
        Label::Foreign(_) => return Err(AmendError::Foreign { offset }),
        Label::Unreadable(source) => return Err(AmendError::Metadata { offset, source: *source }),
        Label::Ours(bytes) => bytes,
    };
    let metadata = CommitMetadata::decode(offset, bytes)
        .map_err(|source| AmendError::Metadata { offset, source })?;
    if metadata.topic_id != topic_id {
        return Err(AmendError::OtherTopic { offset });
    }
    Ok(metadata)
}

/// The message is done: gives the lowest offset that is not.
fn pass_over(completed: &mut Vec<Span>, offset: u64, at: u64) -> u64 {
    let nth = completed.partition_point(|span| span.end <= at);
    completed.insert(nth, Span::one(at));
    let mut joined: Vec<Span> = Vec::new();
    for span in completed.drain(..) {
        span.append_to(&mut joined);
    }
    let leading = joined.first().filter(|span| span.first == offset).copied();
    if leading.is_some() {
        joined.remove(0);
    }
    *completed = joined;
    leading.map_or(offset, |span| span.end)
}
