//! Any bytes: the decoder neither panics nor accepts what no encoder writes.
//! Input: a big-endian offset in eight bytes, then the metadata.

#![no_main]

use countersign_statemachine::{CommitMetadata, MetadataError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((offset, bytes)) = input.split_first_chunk() else { return };
    let offset = u64::from_be_bytes(*offset);
    match CommitMetadata::decode(offset, bytes) {
        Ok(metadata) => {
            assert_eq!(metadata.encode(offset), bytes, "a second way to write {metadata:?}");
            assert_eq!(metadata.encoded_len(offset), bytes.len());
            assert!(metadata.completed.windows(2).all(|pair| pair[0].end < pair[1].first));
            assert!(metadata.attempts.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
        Err(MetadataError::UnknownVersion(version)) => assert_eq!(version, bytes[0]),
        Err(MetadataError::Malformed { at }) => assert!(at <= bytes.len()),
        Err(of_text @ (MetadataError::UnknownForm(_) | MetadataError::DamagedText)) => {
            panic!("these are bytes: {of_text}")
        }
    }
});
