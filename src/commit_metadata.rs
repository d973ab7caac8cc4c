//! The text form of a commit's metadata.
//!
//! Kafka keeps an offset's metadata as a string, and other tools write there too. So the binary
//! form of [`CommitMetadata`](countersign_statemachine::CommitMetadata) travels in base64url
//! without padding behind a prefix that nobody else uses; anything else is not ours.

use data_encoding::BASE64URL_NOPAD;
use thiserror::Error;

/// What our text begins with. The number is that of the text form, not of the bytes in it.
pub const PREFIX: &str = "cs1:";

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

/// Text that this program did not write, or that was changed since.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotOurs {
    /// Another program wrote it, or it is empty.
    #[error("the offset's metadata was not written by this program")]
    Foreign,
    /// It has our prefix and is not what we write.
    #[error("the offset's metadata begins like ours and is damaged")]
    Damaged,
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
/// [`NotOurs`]; the two cases differ: a foreign text is an outside reset, a damaged one must never
/// count as empty.
pub fn disarm(text: &str) -> Result<Vec<u8>, NotOurs> {
    let digits = text.strip_prefix(PREFIX).ok_or(NotOurs::Foreign)?;
    BASE64URL_NOPAD.decode(digits.as_bytes()).map_err(|_| NotOurs::Damaged)
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
        assert_eq!(disarm("cs1:A"), Err(NotOurs::Damaged));
        assert_eq!(disarm("cs1:AA=="), Err(NotOurs::Damaged));
        assert_eq!(disarm("cs1:AB"), Err(NotOurs::Damaged));
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
    }
}
