//! Kafka's frames on the wire: a length, then for requests api key, api version and correlation
//! id, for responses the correlation id.

use std::io::{self, Read};

/// No request of a test is larger; a larger length means that the stream is out of step.
const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The api keys that tests of transactions name.
pub mod api_key {
    /// Records of a producer.
    pub const PRODUCE: i16 = 0;
    /// A fetch of a consumer.
    pub const FETCH: i16 = 1;
    /// Asks for offsets of a log.
    pub const LIST_OFFSETS: i16 = 2;
    /// Asks for brokers and topics.
    pub const METADATA: i16 = 3;
    /// Commits offsets outside of a transaction.
    pub const OFFSET_COMMIT: i16 = 8;
    /// Asks for committed offsets.
    pub const OFFSET_FETCH: i16 = 9;
    /// Asks for the coordinator of a group or a transactional id.
    pub const FIND_COORDINATOR: i16 = 10;
    /// Joins a group.
    pub const JOIN_GROUP: i16 = 11;
    /// Keeps a membership alive.
    pub const HEARTBEAT: i16 = 12;
    /// Leaves a group.
    pub const LEAVE_GROUP: i16 = 13;
    /// Asks for the assignment.
    pub const SYNC_GROUP: i16 = 14;
    /// Asks which versions the broker speaks.
    pub const API_VERSIONS: i16 = 18;
    /// Registers a transactional id.
    pub const INIT_PRODUCER_ID: i16 = 22;
    /// Adds output partitions to a transaction.
    pub const ADD_PARTITIONS_TO_TXN: i16 = 24;
    /// Adds a group to a transaction.
    pub const ADD_OFFSETS_TO_TXN: i16 = 25;
    /// Commits or aborts a transaction.
    pub const END_TXN: i16 = 26;
    /// Adds consumed offsets to a transaction.
    pub const TXN_OFFSET_COMMIT: i16 = 28;
}

/// One request or response, without its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// Reads the next frame; `None` at the end of the stream.
    pub(super) fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut length = [0; 4];
        match stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            let message = format!("a frame of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        // The length leads, so that the frame can be written in one go.
        let mut bytes = Vec::new();
        stream.take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Ok(None);
        }
        Ok(Some(Self(bytes)))
    }

    /// The bytes as they go over the wire.
    pub(super) fn to_wire(&self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("frames are bounded when they are read");
        [&length.to_be_bytes(), self.0.as_slice()].concat()
    }

    /// Header and body.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A number of two bytes at `index`, as api keys and error codes are.
    pub fn i16_at(&self, index: usize) -> Option<i16> {
        self.0.get(index..)?.first_chunk().map(|bytes| i16::from_be_bytes(*bytes))
    }

    fn i32_at(&self, index: usize) -> Option<i32> {
        self.0.get(index..)?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
    }

    /// The request's api key.
    pub fn api_key(&self) -> Option<i16> {
        self.i16_at(0)
    }

    /// The request's api version.
    pub fn api_version(&self) -> Option<i16> {
        self.i16_at(2)
    }

    /// The request's correlation id.
    pub(super) fn request_id(&self) -> Option<i32> {
        self.i32_at(4)
    }

    /// The response's correlation id.
    pub(super) fn response_id(&self) -> Option<i32> {
        self.i32_at(0)
    }
}

/// A predicate for frames that contain `needle`, such as a transactional id.
pub fn contains(needle: impl Into<Vec<u8>>) -> impl Fn(&[u8]) -> bool + Send + 'static {
    let needle = needle.into();
    // `windows` panics for an empty needle.
    move |frame| needle.is_empty() || frame.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::{Frame, contains};

    const END_TXN: &[u8] = &[0, 0, 0, 10, 0, 26, 0, 1, 0, 0, 0, 7, b'i', b'd'];

    #[test]
    fn frame_goes_round() {
        let frame = Frame::read(&mut &*END_TXN).unwrap().unwrap();
        assert_eq!(frame.api_key(), Some(26));
        assert_eq!(frame.api_version(), Some(1));
        assert_eq!(frame.request_id(), Some(7));
        assert_eq!(frame.to_wire(), END_TXN);
    }

    #[test]
    fn cut_frame_is_the_end() {
        assert_eq!(Frame::read(&mut &END_TXN[..9]).unwrap(), None);
        assert_eq!(Frame::read(&mut &END_TXN[..0]).unwrap(), None);
    }

    #[test]
    fn needle_is_found_or_not() {
        assert!(contains("id")(END_TXN));
        assert!(!contains("di")(END_TXN));
        assert!(!contains("id")(b"i"));
        assert!(contains("")(b""));
    }
}
