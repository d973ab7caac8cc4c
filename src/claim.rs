//! Transactional ids: which are ours, and what former starts left open under others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::driver::{Clerk, GivenUp, Hand, Pulse, Relay, Watchdog};
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
        watchdog: &Watchdog,
    ) -> Result<(), RunError> {
        let workers = 0..self.config.workers;
        let ours: BTreeSet<String> =
            workers.flat_map(|worker| self.config.transactional_ids(worker)).collect();
        let mut former = clerk.slots().await?;
        former.retain(|id| !ours.contains(id));
        if !former.is_empty() {
            let kafka = Arc::clone(kafka);
            let make = move || Ok(Ending(Arc::clone(&kafka)));
            let ending = Relay::start(watchdog, "countersign-claim", make)?;
            for id in former {
                // One that hangs is left to its time-out, too.
                let _: Result<(), _> = ending.ask(|done| (id, done)).await;
            }
            ending.end().await;
        }
        for id in ours {
            clerk.remember_slot(id).await?;
        }
        Ok(())
    }
}

/// How long a registration may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Ends transactions that a former process may have left open.
struct Ending<K>(Arc<K>);

impl<K: Kafka> Hand<(String, oneshot::Sender<()>)> for Ending<K> {
    async fn work(
        &mut self,
        (id, done): (String, oneshot::Sender<()>),
        pulse: &Pulse,
    ) -> Result<(), GivenUp> {
        let Self(kafka) = self;
        pulse.enter("init_transactions", TIMEOUT)?;
        let registered = match kafka.producer(&id, Sizes::default()) {
            Ok(mut producer) => producer.init(TIMEOUT).await,
            Err(error) => Err(error),
        };
        pulse.leave()?;
        if let Err(error) = registered {
            tracing::warn!(%id, %error, "a former transaction is left to its time-out");
        }
        // Nobody may be waiting any more.
        let _ = done.send(());
        Ok(())
    }
}
