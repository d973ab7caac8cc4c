//! The text form of a commit's metadata.
//!
//! Kafka keeps an offset's metadata as a string, and other tools write there too. So the binary
//! form of [`CommitMetadata`](countersign_statemachine::CommitMetadata) travels in base64url
//! without padding behind a prefix that nobody else uses: `cs`, the number of the text form, and a
//! colon. A text that does not begin so is not ours, and one that does is never taken for one that
//! is not.

use countersign_statemachine::MetadataError;
use countersign_statemachine::worker::{Commit, Label};
use data_encoding::BASE64URL_NOPAD;
use thiserror::Error;

use crate::kafka::Committed;

/// What our text begins with. The number is that of the text form, not of the bytes in it.
pub const PREFIX: &str = "cs1:";

/// What the text of every form begins with.
const NAME: &str = "cs";

/// What `offset.metadata.max.bytes` is on a broker that nobody has changed it on.
pub const DEFAULT_TEXT_LIMIT: usize = 4_096;

/// How many bytes fit a text of [`DEFAULT_TEXT_LIMIT`].
pub const MAX_BINARY_LEN: usize = max_binary_len(DEFAULT_TEXT_LIMIT);

/// How many bytes fit a text of at most `text_limit` bytes: one more and the broker refuses the
/// commit, which aborts the transaction.
pub const fn max_binary_len(text_limit: usize) -> usize {
    let digits = text_limit.saturating_sub(PREFIX.len());
    // Four digits hold three bytes, three hold two, two hold one, and one holds nothing.
    digits / 4 * 3 + (digits % 4) * 3 / 4
}

/// Text that cannot be read as ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotOurs {
    /// Another program wrote it, or it is empty.
    #[error("the offset's metadata was not written by this program")]
    Foreign,
    /// It is ours, and was written by a newer version or changed since.
    #[error("the offset's metadata is ours and cannot be read: {0}")]
    Unreadable(MetadataError),
}

/// Wraps bytes as text for Kafka's offset metadata.
#[must_use]
pub fn armor(bytes: &[u8]) -> String {
    let mut text = PREFIX.to_owned();
    BASE64URL_NOPAD.encode_append(bytes, &mut text);
    text
}

/// Unwraps what [`armor`] made.
///
/// # Errors
/// [`NotOurs`]; the two cases differ: a foreign text is an outside reset, one that cannot be read
/// must never count as empty.
pub fn disarm(text: &str) -> Result<Vec<u8>, NotOurs> {
    if let Some(digits) = text.strip_prefix(PREFIX) {
        let bytes = BASE64URL_NOPAD.decode(digits.as_bytes());
        return bytes.map_err(|_| NotOurs::Unreadable(MetadataError::DamagedText));
    }
    // Cut off within the prefix it is still nobody else's.
    let digits = text.strip_prefix(NAME).ok_or(NotOurs::Foreign)?;
    let (number, is_whole) = match digits.split_once(':') {
        Some((number, _)) => (number, true),
        None => (digits, false),
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotOurs::Foreign);
    }
    let is_known =
        PREFIX.strip_prefix(NAME) == Some(&format!("{}:", number.trim_start_matches('0')));
    Err(NotOurs::Unreadable(if is_whole && !is_known {
        MetadataError::UnknownForm(number.parse().unwrap_or(u32::MAX))
    } else {
        MetadataError::DamagedText
    }))
}

/// What a committed offset of Kafka is to the worker.
pub(crate) fn commit_of(committed: Committed) -> Commit {
    let label = match disarm(&committed.metadata) {
        Ok(bytes) => Label::Ours(bytes),
        Err(NotOurs::Foreign) => Label::Foreign(committed.metadata),
        Err(NotOurs::Unreadable(error)) => Label::Unreadable(error),
    };
    Commit { offset: committed.offset, label }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_limit_holds_3069_bytes() {
        assert_eq!(MAX_BINARY_LEN, 3_069);
        assert_eq!(armor(&[0xfb, 0xff]), "cs1:-_8");
    }

    #[test]
    fn what_others_wrote_is_told_from_what_was_damaged() {
        assert_eq!(disarm(""), Err(NotOurs::Foreign));
        assert_eq!(disarm("offset set by hand"), Err(NotOurs::Foreign));
        for foreign in ["cs", "cs:AA", "csv1:AA", "cs1a:AA", "CS1:AA", " cs1:AA", "cs-1:AA"] {
            assert_eq!(disarm(foreign), Err(NotOurs::Foreign), "{foreign:?}");
        }
        let unreadable = |error| Err(NotOurs::Unreadable(error));
        for damaged in ["cs1:A", "cs1:AA==", "cs1:AB", "cs1: AA", "cs1", "cs12", "cs01:AA"] {
            assert_eq!(disarm(damaged), unreadable(MetadataError::DamagedText), "{damaged:?}");
        }
        for (newer, form) in
            [("cs2:", 2), ("cs0:AA", 0), ("cs12:AA", 12), ("cs4294967296:", u32::MAX)]
        {
            assert_eq!(disarm(newer), unreadable(MetadataError::UnknownForm(form)), "{newer:?}");
        }
    }

    proptest! {
        #[test]
        fn the_longest_that_fits_fits_and_one_more_does_not(limit in 4_usize..300) {
            let longest = max_binary_len(limit);
            prop_assert!(armor(&vec![7; longest]).len() <= limit);
            prop_assert!(armor(&vec![7; longest + 1]).len() > limit);
        }

        #[test]
        fn bytes_survive(bytes: Vec<u8>) {
            let text = armor(&bytes);
            prop_assert!(text.is_ascii());
            prop_assert_eq!(disarm(&text), Ok(bytes));
        }

        #[test]
        fn no_text_panics(text in "(cs1:)?[ -~]{0,40}") {
            if let Ok(bytes) = disarm(&text) {
                prop_assert_eq!(armor(&bytes), text);
            }
        }

        #[test]
        fn what_begins_like_ours_is_never_foreign(text in "cs[0-9]{1,12}:.{0,40}") {
            prop_assert_ne!(disarm(&text), Err(NotOurs::Foreign));
        }
    }
}
