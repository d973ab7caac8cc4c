//! Goal: commit metadata says after decoding what was meant, and nothing is misread.
//! Method: random metadata and random bytes through the codec, and one pinned example.

use std::iter;

use countersign_statemachine::{
    ATTEMPT_MAX, Author, CommitMetadata, FirstStart, MetadataError, NAME_BYTES_MAX, Span, Trial,
};
use proptest::prelude::*;

/// Kafka's offsets are signed.
const OFFSET_MAX: u64 = i64::MAX as u64;

fn author() -> impl Strategy<Value = Author> {
    ("\\PC{0,20}", any::<u64>(), any::<u64>()).prop_map(|(instance, incarnation, number)| Author {
        instance,
        incarnation,
        number,
    })
}

/// A number of any magnitude: uniform ones nearly all have the same length.
fn magnitude(max: u64) -> impl Strategy<Value = u64> {
    (0_u32..64, any::<u64>()).prop_map(move |(shift, bits)| (bits >> shift).min(max))
}

/// Rising spans that do not touch, from distances and lengths.
fn completed(offset: u64) -> impl Strategy<Value = Vec<Span>> {
    prop::collection::vec((magnitude(1 << 50), magnitude(1 << 50)), 0..20).prop_map(move |parts| {
        let mut from = offset;
        let span = |(gap, len): (u64, u64)| {
            let first = from + gap;
            from = first + len + 2;
            Span { first, end: first + len + 1 }
        };
        parts.into_iter().map(span).collect()
    })
}

fn attempts(offset: u64) -> impl Strategy<Value = Vec<(u64, u32)>> {
    prop::collection::vec((magnitude(1 << 50), any::<u32>()), 0..20).prop_map(move |parts| {
        let mut from = offset;
        let attempt = |(gap, attempt): (u64, u32)| {
            let at = from + gap;
            from = at + 1;
            (at, attempt)
        };
        parts.into_iter().map(attempt).collect()
    })
}

fn first_start() -> impl Strategy<Value = FirstStart> {
    let end = (1_u32..1_000, magnitude(u64::MAX));
    (prop::collection::vec(end, 0..20), 0_u32..10).prop_map(|(parts, more)| {
        let mut number = 0;
        let mut ends = Vec::new();
        for (gap, end) in parts {
            number += gap;
            ends.push((number, end));
        }
        FirstStart { partitions: number + 1 + more, ends }
    })
}

/// An offset and what a commit of it may say.
fn commit() -> impl Strategy<Value = (u64, CommitMetadata)> {
    magnitude(OFFSET_MAX).prop_flat_map(|offset| {
        let trial = (magnitude(1 << 50), any::<u32>(), any::<bool>()).prop_map(
            move |(gap, deliveries, announced)| {
                let offset = offset + gap;
                Trial { offset, deliveries, announced }
            },
        );
        let careful = magnitude(1 << 50).prop_map(move |gap| offset + gap);
        let tried = (prop::option::of(careful), prop::option::of(trial), any::<u32>());
        let careful = (tried, prop::option::of(first_start()));
        let lists = (completed(offset), attempts(offset));
        let flags = (any::<[u8; 16]>(), any::<bool>(), any::<bool>());
        (author(), prop::option::of(author()), lists, flags, careful).prop_map(
            move |(author, prev, lists, flags, (tried, first_start))| {
                let (careful, trial, takeovers) = tried;
                let ((completed, attempts), (topic_id, released, advanced)) = (lists, flags);
                let metadata = CommitMetadata {
                    author,
                    prev,
                    topic_id,
                    completed,
                    attempts,
                    released,
                    takeovers,
                    advanced,
                    careful,
                    trial,
                    first_start,
                };
                (offset, metadata)
            },
        )
    })
}

/// What a decoder may say to bytes of which nothing is known.
fn check_any(offset: u64, bytes: &[u8]) -> Result<(), TestCaseError> {
    match CommitMetadata::decode(offset, bytes) {
        Ok(metadata) => prop_assert_eq!(metadata.encode(offset), bytes),
        Err(MetadataError::UnknownVersion(version)) => {
            prop_assert!(!matches!(version, 1 | 2) && bytes.first() == Some(&version));
        }
        Err(MetadataError::Malformed { at }) => prop_assert!(at <= bytes.len()),
        Err(of_text @ (MetadataError::UnknownForm(_) | MetadataError::DamagedText)) => {
            prop_assert!(false, "these are bytes: {of_text}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// What is admitted by this bound never makes a commit that the broker refuses.
    #[test]
    fn nothing_is_longer_than_its_bound((offset, metadata) in commit(), dense in any::<bool>()) {
        // What it says of other partitions comes to it.
        let mut metadata = CommitMetadata { first_start: None, ..metadata };
        for author in iter::once(&mut metadata.author).chain(&mut metadata.prev) {
            author.instance = "n".repeat(NAME_BYTES_MAX);
        }
        for (_, attempt) in &mut metadata.attempts {
            *attempt = (*attempt).min(ATTEMPT_MAX);
        }
        if dense {
            // Spans and attempts as many as can be, in as little as can be.
            metadata.completed = (0..700).map(|n| Span::one(offset + 2 * n + 1)).collect();
            metadata.attempts = (0..700).map(|n| (offset + 2 * n, ATTEMPT_MAX)).collect();
        }
        let last = metadata.completed.last().map_or(offset, |span| span.end);
        let last = metadata.attempts.last().map_or(last, |(at, _)| last.max(at + 1));
        let lists = (metadata.completed.len() as u64, metadata.attempts.len() as u64);
        let most = CommitMetadata::most_bytes(lists.0, lists.1, last - offset);
        let len = metadata.encoded_len(offset) as u64;
        prop_assert!(len <= most, "{} bytes, not {}", len, most);
        // And the bound is of use.
        prop_assert!(!dense || most < len + 200, "{} bytes, not {}", len, most);
    }

    #[test]
    fn decoding_inverts_encoding((offset, metadata) in commit()) {
        let bytes = metadata.encode(offset);
        prop_assert_eq!(metadata.encoded_len(offset), bytes.len());
        prop_assert_eq!(CommitMetadata::decode(offset, &bytes), Ok(metadata));
    }

    #[test]
    fn a_part_is_never_taken_for_the_whole((offset, metadata) in commit(), extra in any::<u8>()) {
        let mut bytes = metadata.encode(offset);
        for len in 0..bytes.len() {
            let cut = CommitMetadata::decode(offset, &bytes[..len]);
            prop_assert!(matches!(cut, Err(MetadataError::Malformed { .. })), "{cut:?}");
        }
        bytes.push(extra);
        let at = bytes.len() - 1;
        prop_assert_eq!(
            CommitMetadata::decode(offset, &bytes),
            Err(MetadataError::Malformed { at }),
        );
    }

    #[test]
    fn an_unknown_version_is_an_error_whatever_follows(
        version in prop_oneof![Just(0_u8), 3..=u8::MAX],
        rest in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let bytes = [vec![version], rest].concat();
        let unknown = Err(MetadataError::UnknownVersion(version));
        prop_assert_eq!(CommitMetadata::decode(0, &bytes), unknown);
    }

    #[test]
    fn any_bytes_decode_to_what_encodes_to_them(
        offset in magnitude(u64::MAX),
        rest in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..4, Just(0x80)], 0..120),
    ) {
        check_any(offset, &rest)?;
        check_any(offset, &[vec![1], rest.clone()].concat())?;
        check_any(offset, &[vec![2], rest].concat())?;
    }

    /// Damage near valid bytes reaches deeper into the decoder than random bytes do.
    #[test]
    fn damaged_bytes_decode_to_what_encodes_to_them(
        (offset, metadata) in commit(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = metadata.encode(offset);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check_any(offset, &bytes)?;
    }
}

fn example() -> CommitMetadata {
    CommitMetadata {
        author: Author { instance: "a-0".to_owned(), incarnation: 0x0102, number: 300 },
        prev: Some(Author { instance: "b".to_owned(), incarnation: 7, number: 0 }),
        topic_id: [9; 16],
        completed: vec![Span { first: 1_002, end: 1_003 }, Span { first: 1_010, end: 1_210 }],
        attempts: vec![(1_000, 2), (1_001, 1)],
        released: true,
        takeovers: 5,
        advanced: true,
        careful: Some(1_009),
        trial: Some(Trial { offset: 1_000, deliveries: 3, announced: true }),
        first_start: None,
    }
}

/// The bytes of version 1, as other versions of Countersign in the same group read them.
#[test]
fn the_bytes_of_version_1_stay() {
    let bytes: Vec<u8> = [
        &[1, 0b11_1111][..],
        &[3, b'a', b'-', b'0', 0, 0, 0, 0, 0, 0, 1, 2, 0xac, 0x02],
        &[1, b'b', 0, 0, 0, 0, 0, 0, 0, 7, 0],
        &[9; 16],
        &[5],
        &[2, 2, 0, 7, 0xc7, 0x01],
        &[2, 0, 2, 1, 1],
        &[9],
        &[0, 3],
    ]
    .concat();
    assert_eq!(example().encode(1_000), bytes);
    assert_eq!(CommitMetadata::decode(1_000, &bytes), Ok(example()));
}

/// Older versions stop at the first byte, and say which version they do not know.
#[test]
fn the_bytes_of_version_2_stay() {
    let first_start = FirstStart { partitions: 7, ends: vec![(0, 300), (2, 1), (6, 0)] };
    let of_version_1 = example().encode(1_000);
    let example = CommitMetadata { first_start: Some(first_start), ..example() };
    let bytes = [&[2], &of_version_1[1..], &[7, 3, 0, 0xac, 0x02, 2, 1, 4, 0]].concat();
    assert_eq!(example.encode(1_000), bytes);
    assert_eq!(CommitMetadata::decode(1_000, &bytes), Ok(example));
}

#[test]
fn first_starts_that_no_encoder_writes_are_refused() {
    let head = [&[2], &example().encode(1_000)[1..]].concat();
    let cases: [(&str, &[u8]); 4] = [
        ("nothing", &[]),
        ("the same partition twice", &[7, 2, 1, 9, 0, 9]),
        ("a partition that the topic does not have", &[7, 1, 7, 9]),
        ("something behind it", &[7, 1, 6, 9, 0]),
    ];
    for (what, tail) in cases {
        let refused = CommitMetadata::decode(1_000, &[&head, tail].concat());
        assert!(matches!(refused, Err(MetadataError::Malformed { .. })), "{what}: {refused:?}");
    }
}

/// Each is a second way to write something, which would make equal commits compare unequal.
#[test]
fn bytes_that_no_encoder_writes_are_refused() {
    let plain = CommitMetadata {
        author: Author { instance: String::new(), incarnation: 0, number: 0 },
        prev: None,
        topic_id: [0; 16],
        completed: vec![],
        attempts: vec![],
        released: false,
        takeovers: 0,
        advanced: false,
        careful: None,
        trial: None,
        first_start: None,
    };
    let head = plain.encode(0);
    let lists = head.len() - 3;
    let cases: [(&str, usize, Vec<u8>); 9] = [
        ("an unknown flag", 1, vec![64]),
        ("an announcement of nothing", 1, vec![8]),
        ("a name that is not text", 2, vec![1, 0xff]),
        ("a long zero", lists, vec![0x80, 0, 0, 0]),
        ("takeovers beyond 32 bits", lists, vec![0xff, 0xff, 0xff, 0xff, 0x1f, 0, 0]),
        (
            "a number beyond 64 bits",
            lists,
            vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ),
        ("touching spans", lists, vec![0, 2, 0, 0, 0, 0, 0]),
        ("the same offset twice", lists, vec![0, 0, 2, 5, 1, 0, 1]),
        (
            "more spans than bytes",
            lists,
            vec![0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ),
    ];
    assert!(CommitMetadata::decode(0, &head).is_ok());
    for (what, at, tail) in cases {
        let mut bytes = head[..at].to_vec();
        bytes.extend(tail);
        if at < lists {
            bytes.extend(&head[at + 1..]);
        }
        let refused = CommitMetadata::decode(0, &bytes);
        assert!(matches!(refused, Err(MetadataError::Malformed { .. })), "{what}: {refused:?}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let unknown = CommitMetadata::decode(0, &[9]).unwrap_err();
    let text = "version 9 of the commit metadata is not known; upgrade this instance";
    assert_eq!(unknown.to_string(), text);
    let cut = CommitMetadata::decode(0, &[]).unwrap_err();
    assert_eq!(cut.to_string(), "the commit metadata is malformed at byte 0");
    let newer = [unknown, MetadataError::UnknownForm(2)];
    assert!(newer.iter().all(|error| error.advice().contains("run the version that wrote it")));
    let damaged = [cut, MetadataError::DamagedText];
    assert!(damaged.iter().all(|error| error.advice().contains("--reset-offsets")));
}

#[test]
#[should_panic(expected = "positions in a commit's metadata rise from its offset")]
fn what_lies_below_the_offset_cannot_be_encoded() {
    let _ = example().encode(1_001);
}
