//! Questions to Kafka and the store that the worker waits for.

use std::sync::Arc;
use std::time::Duration;

use countersign_statemachine::worker::{self, Commit, Input};
use countersign_statemachine::{Disposition, Entry, PartitionId};
use futures::FutureExt;

use crate::commit_metadata::commit_of;
use crate::error::RunError;
use crate::kafka::{ErrorKind, KafkaError, Topic, TopicPartition, of_all};
use crate::status::Connection;
use crate::store::StoreError;

use super::clerk::{Clerk, Unfinished};
use super::poll::Command;
use super::scout::{Scout, existing, persistently};
use super::takeup::Round;
use super::{Driver, Identified};

/// What was found out.
pub(super) enum Finding {
    /// Which partitions the group gives, and whether some are nobody's.
    Identified(Result<(Vec<Identified>, bool), RunError>),
    /// What is known of some of them.
    Recovered(Result<Round, RunError>),
    /// The stable commits of a transaction in doubt.
    Commits(u64, Result<Vec<(PartitionId, Option<Commit>)>, RunError>),
    /// Kafka answers again.
    Reachable,
    /// Which partitions have no commit.
    Uncommitted(Result<Vec<(PartitionId, Vec<u32>)>, KafkaError>),
    /// Whether the group may be asked for anything.
    Asked(Result<(), KafkaError>),
}

impl From<KafkaError> for RunError {
    fn from(error: KafkaError) -> Self {
        Self::of_kafka(error)
    }
}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Driver {
    pub(super) fn identify(&mut self, partitions: Vec<TopicPartition>) {
        self.vitals.rebalance();
        let (scout, clerk) = (self.scout.clone(), self.clerk.clone());
        // Whoever joins afresh may have taken the place of a member that owed a rebalance.
        let afresh = self.known.is_empty();
        let inputs = Arc::clone(&self.inputs);
        let job = async move {
            let identified = identify(&scout, &clerk, partitions).await;
            let gap = afresh && has_gap(&scout, &inputs).await;
            Finding::Identified(identified.map(|identified| (identified, gap)))
        };
        self.jobs.push(job.boxed());
    }

    pub(super) fn read_commits(&mut self, number: u64, ids: &[PartitionId]) {
        let named = ids.iter().filter_map(|id| Some((*id, self.name(*id)?)));
        let (ids, names): (Vec<_>, Vec<_>) = named.unzip();
        let scout = self.scout.clone();
        let job = async move {
            let committed =
                persistently(|| async { of_all(scout.committed(names.clone()).await) }).await;
            let commits = committed.map(|commits| {
                let commits = commits.into_iter().map(|commit| commit.map(commit_of));
                ids.into_iter().zip(commits).collect()
            });
            Finding::Commits(number, commits.map_err(RunError::from))
        };
        self.jobs.push(job.boxed());
    }

    /// Asks until a broker answers, whatever it answers: while nothing is read there is no other
    /// sign of it.
    pub(super) fn probe_connection(&mut self) {
        let scout = self.scout.clone();
        let job = async move {
            // A refusal is told by whatever is done next.
            let _ = persistently(|| scout.cluster_id()).await;
            Finding::Reachable
        };
        self.jobs.push(job.boxed());
    }

    /// Asks for a commit of the group: whoever may not be its member is refused that as well, if
    /// the right to the group is missing.
    pub(super) fn ask_for_membership(&mut self) {
        let scout = self.scout.clone();
        let partition = self.inputs.first().map(|topic| TopicPartition::new(Arc::clone(topic), 0));
        let job = async move {
            let asked = scout.committed(partition.into_iter().collect()).await;
            Finding::Asked(asked.map(|_| ()))
        };
        self.jobs.push(job.boxed());
    }

    pub(super) fn learn(&mut self, finding: Finding) -> Result<(), RunError> {
        match finding {
            Finding::Identified(identified) => {
                let (identified, gap) = identified?;
                if gap {
                    tracing::info!("partitions are nobody's: joining the group once more");
                    self.command(Command::Rejoin);
                }
                let ids = identified.iter().map(|known| known.id).collect();
                self.known.extend(identified.into_iter().map(|known| (known.id, known)));
                self.handle(Input::Assigned(ids));
            }
            Finding::Recovered(round) => self.recovered(round?),
            Finding::Commits(number, commits) => {
                self.handle(Input::Commits { number, commits: commits? });
            }
            Finding::Uncommitted(Ok(topics)) => self.handle(Input::Uncommitted(topics)),
            // The worker asks again.
            Finding::Uncommitted(Err(error)) => {
                tracing::debug!(%error, "which partitions have a commit is not told");
            }
            Finding::Asked(Err(error)) if error.disposition == Disposition::Permanent => {
                self.denied(None, &error);
            }
            // The consumer tells what else it is refused.
            Finding::Asked(_) => {}
            Finding::Reachable => {
                self.status.connection(Connection::Connected);
            }
        }
        Ok(())
    }
}

/// How long a broker may not know a topic that the group gives partitions of. Longer than metadata
/// take to reach every broker; a topic that is deleted must not hold the member for ever.
const PATIENCE: Duration = Duration::from_secs(10);

async fn identify(
    scout: &Scout,
    clerk: &Clerk,
    partitions: Vec<TopicPartition>,
) -> Result<Vec<Identified>, RunError> {
    let mut names: Vec<_> = partitions.iter().map(|tp| tp.topic.clone()).collect();
    names.sort_unstable();
    names.dedup();
    let topics = existing(scout, &names, PATIENCE).await?;
    let topic_of = |tp: &TopicPartition| topics.iter().find(|topic| topic.name == tp.topic);
    let known: Vec<_> = partitions
        .into_iter()
        .filter_map(|tp| topic_of(&tp).map(|topic| (tp, topic.id, topic.partitions)))
        .collect();
    let ids = clerk.intern(known.iter().map(|(tp, id, _)| (tp.clone(), *id)).collect()).await?;
    let identified =
        |((partition, topic_id, siblings), id)| Identified { partition, id, topic_id, siblings };
    Ok(known.into_iter().zip(ids).map(identified).collect())
}

/// Whether the group is stable and gives some partitions of these topics to nobody. Where it cannot
/// be told, it is so: to join once more than needed moves nothing.
async fn has_gap(scout: &Scout, inputs: &[Arc<str>]) -> bool {
    let told = async {
        Ok::<_, KafkaError>((scout.members().await?, scout.topics(inputs.to_vec()).await?))
    };
    let (members, topics) = match told.await {
        Ok(told) => told,
        Err(error) => {
            tracing::debug!(%error, "the group's members are not told");
            return true;
        }
    };
    let is_nobodys =
        |topic: &Topic| topic.all().any(|partition| !members.assigned.contains_key(&partition));
    members.is_stable && topics.iter().any(is_nobodys)
}

/// Brings what the store holds of partitions that nobody here owns any more in line with Kafka, so
/// that it does not tell of work under way that another instance has done. A partition whose commit
/// is pending stays as it is.
///
/// # Errors
/// Kafka or the store does not answer.
pub(crate) async fn settle_unowned(
    scout: &Scout,
    clerk: &Clerk,
    ours: &[String],
) -> Result<(), RunError> {
    for Unfinished { id, partition, runs } in clerk.unfinished().await? {
        let committed = match of_all(scout.committed(vec![partition.clone()]).await) {
            Err(error) if error.kind == ErrorKind::Pending => continue,
            told => told?,
        };
        let Some(commit) = committed.into_iter().next().flatten().map(commit_of) else { continue };
        let moves = match worker::settle_unowned(id, &commit, &runs, ours) {
            Ok(moves) => moves,
            Err(error) => {
                tracing::warn!(%partition, %error, "messages stay unsettled in the store");
                continue;
            }
        };
        clerk.note(moves.into_iter().map(Entry::Moved).collect()).await?;
    }
    Ok(())
}
