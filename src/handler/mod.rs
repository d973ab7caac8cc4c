//! What the user writes: handlers, their messages, their outputs and their errors.

mod adapter;
mod error;
mod message;
mod outputs;
mod partitioner;

pub use adapter::{BatchHandler, Each, Handler, InBatches, batch, decoded, each, json, postcard};
pub use error::{BatchError, HandlerError};
pub use message::Message;
pub use outputs::{Outputs, To};
pub use partitioner::{ChoosePartition, Partitioning, murmur2, partition_of_key};

pub(crate) use adapter::{Work, batch_work_of, failure_of_panic, work_of};
pub(crate) use outputs::{Source, Topics};
