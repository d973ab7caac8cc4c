//! Which partition an output goes to.

use std::fmt;
use std::sync::Arc;

/// How an output's partition is chosen.
#[derive(Clone, Default)]
pub enum Partitioning {
    /// By the hash of its key, as the Java clients do, so that topics with the same number of
    /// partitions stay co-partitioned. Without a key: in turn.
    #[default]
    ByKey,
    /// The number of the input's partition, if the output topic has as many partitions as the input
    /// topic; otherwise by key.
    AsInput,
    /// In turn.
    RoundRobin,
    /// This one.
    To(u32),
    /// What the function gives for the key and the number of partitions.
    With(Arc<ChoosePartition>),
}

/// Gives a partition for a key and the number of partitions.
pub type ChoosePartition = dyn Fn(Option<&[u8]>, u32) -> u32 + Send + Sync;

impl fmt::Debug for Partitioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByKey => f.write_str("ByKey"),
            Self::AsInput => f.write_str("AsInput"),
            Self::RoundRobin => f.write_str("RoundRobin"),
            Self::To(partition) => write!(f, "To({partition})"),
            Self::With(_) => f.write_str("With(..)"),
        }
    }
}

/// The partition that the Java clients choose for a key.
///
/// # Panics
/// There are no partitions.
pub fn partition_of_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// `MurmurHash2` by Austin Appleby, 32 bits, with the seed of Kafka's Java clients
/// (`org.apache.kafka.common.utils.Utils.murmur2`).
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // The reference takes the length as a 32-bit number.
    #[expect(clippy::cast_possible_truncation, reason = "wraps as the reference does")]
    let mut hash = SEED ^ (data.len() as u32);
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let word = chunk.iter().rev().fold(0_u32, |word, &byte| (word << 8) | u32::from(byte));
        let mut k = word.wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0_u32, |word, &byte| (word << 8) | u32::from(byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that Kafka's own test of `Utils.murmur2` expects.
    #[test]
    fn murmur2_agrees_with_the_java_clients() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key).cast_signed(), expected, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn a_key_always_goes_to_the_same_partition() {
        for partitions in 1..50 {
            assert!(partition_of_key(b"abc", partitions) < partitions);
            assert_eq!(partition_of_key(b"abc", partitions), partition_of_key(b"abc", partitions));
        }
    }
}
