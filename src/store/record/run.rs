//! A run: contiguous received offsets with one history.

use countersign_statemachine::{History, PartitionId, Run, Span};
use serde::{Deserialize, Serialize};

use super::{Fields, Malformed, Stored, code, decode, encode, key};

/// A run of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunRecord {
    /// Which partition.
    pub partition: PartitionId,
    /// The run; its count is at most its length.
    pub run: Run,
}

/// Length and gaps instead of end and count: small numbers are short.
#[derive(Serialize, Deserialize)]
struct Wire {
    state: u8,
    len: u64,
    gaps: u64,
    attempt: u32,
    deliveries: u32,
    life: u32,
}

impl RunRecord {
    /// The key of the run of `partition` that begins at `first`.
    pub fn key_at(partition: PartitionId, first: u64) -> Vec<u8> {
        key(Self::KIND, &[&partition.0.to_be_bytes(), &first.to_be_bytes()])
    }
}

impl Stored for RunRecord {
    const KIND: u8 = 0x05;
    const NAME: &'static str = "run";

    fn key(&self) -> Vec<u8> {
        Self::key_at(self.partition, self.run.span.first)
    }

    fn value(&self) -> Vec<u8> {
        let Run { span, count, history } = self.run;
        encode(&Wire {
            state: code::state(history.state),
            len: span.len(),
            gaps: span.len().saturating_sub(count),
            attempt: history.attempt,
            deliveries: history.deliveries,
            life: history.life,
        })
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::of::<Self>(key)?;
        let partition = PartitionId(fields.u32()?);
        let first = fields.u64()?;
        fields.end()?;
        let wire: Wire = decode(Self::NAME, value)?;
        let damaged = Malformed::Damaged { record: Self::NAME };
        let run = (|| {
            let span = Span::new(first, first.checked_add(wire.len)?)?;
            let count = wire.len.checked_sub(wire.gaps)?;
            let state = code::to_state(wire.state)?;
            let Wire { attempt, deliveries, life, .. } = wire;
            Some(Run { span, count, history: History { state, attempt, deliveries, life } })
        })();
        Ok(Self { partition, run: run.ok_or(damaged)? })
    }
}
