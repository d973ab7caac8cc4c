//! The input: every value follows from its number, so that a reader can check it byte for byte.

use std::io::Write as _;

use crate::case::Data;

/// Digits of a number in JSON.
const DIGITS: usize = 12;
const JSON_HEAD: &[u8] = br#"{"id":""#;
const WORDS: [&str; 16] = [
    "amount", "account", "booking", "currency", "customer", "invoice", "ledger", "limit", "order",
    "payment", "pending", "receipt", "refund", "settled", "status", "transfer",
];
/// The shortest values that hold a number and, in the latency mode, a time.
pub(crate) const MIN_BYTES: usize = 64;

/// Steele and Vigna's splitmix64: a good mixer of a few instructions.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writes the value with this number over `value`.
pub(crate) fn fill(value: &mut Vec<u8>, data: Data, index: u64, bytes: usize) {
    value.clear();
    let mut state = index;
    match data {
        Data::Random => {
            value.extend_from_slice(&index.to_be_bytes());
            while value.len() < bytes {
                value.extend_from_slice(&splitmix(&mut state).to_le_bytes());
            }
            value.truncate(bytes);
        }
        Data::Json => {
            value.extend_from_slice(JSON_HEAD);
            write!(value, "{index:0DIGITS$}").expect("writing to a vector does not fail");
            while value.len() + 2 < bytes {
                let random = splitmix(&mut state);
                let word = WORDS.get((random % 16) as usize).copied().unwrap_or_default();
                let separator = if random & 0x300 == 0 { r#"",""# } else { r#"":""# };
                value.extend_from_slice(separator.as_bytes());
                value.extend_from_slice(word.as_bytes());
                write!(value, "{}", (random >> 16) % 1_000)
                    .expect("writing to a vector does not fail");
            }
            value.truncate(bytes.saturating_sub(2));
            value.extend_from_slice(br#""}"#);
        }
    }
}

/// The number of a value.
pub(crate) fn index(value: &[u8], data: Data) -> Option<u64> {
    match data {
        Data::Random => value.first_chunk().copied().map(u64::from_be_bytes),
        Data::Json => {
            let digits = value.get(JSON_HEAD.len()..JSON_HEAD.len() + DIGITS)?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_its_size_and_tells_its_number() {
        for data in [Data::Json, Data::Random] {
            for bytes in [MIN_BYTES, 200, 1024] {
                let mut value = Vec::new();
                fill(&mut value, data, 7_654_321, bytes);
                assert_eq!(value.len(), bytes);
                assert_eq!(index(&value, data), Some(7_654_321));
                let mut other = Vec::new();
                fill(&mut other, data, 7_654_322, bytes);
                assert_ne!(value, other);
            }
        }
    }
}
