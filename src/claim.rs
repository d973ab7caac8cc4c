//! Transactional ids: which are ours, and what former starts left open under others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::driver::{Clerk, Host};
use crate::error::RunError;
use crate::kafka::{Kafka, Producer, Sizes};
use crate::processor::Processor;

impl Processor {
    /// Notes the transactional ids of this start, and ends what those of earlier starts with more
    /// workers left open: their pending offsets would hold partitions up until a time-out.
    pub(crate) async fn claim<K: Kafka>(
        &self,
        kafka: &Arc<K>,
        clerk: &Clerk,
        host: Host,
    ) -> Result<(), RunError> {
        let workers = 0..self.config.workers;
        let ours: BTreeSet<String> =
            workers.flat_map(|worker| self.config.transactional_ids(worker)).collect();
        let mut former = clerk.slots().await?;
        former.retain(|id| !ours.contains(id));
        if !former.is_empty() {
            let (done, all_done) = oneshot::channel();
            let kafka = Arc::clone(kafka);
            let ending = host.spawn("countersign-claim", async move {
                for id in former {
                    end_former(&*kafka, &id).await;
                }
                // Nobody may be waiting any more.
                let _ = done.send(());
            });
            let _ = all_done.await;
            drop(ending);
        }
        for id in ours {
            clerk.remember_slot(id).await?;
        }
        Ok(())
    }
}

/// Ends the transaction that a former process may have left open.
async fn end_former<K: Kafka>(kafka: &K, id: &str) {
    let registered = match kafka.producer(id, Sizes::default()) {
        Ok(mut producer) => producer.init(Duration::from_secs(10)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = registered {
        tracing::warn!(%id, %error, "a former transaction is left to its time-out");
    }
}
