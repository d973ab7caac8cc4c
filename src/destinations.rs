//! What is written to: the output topics and that of dead letters, with their limits.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::driver::{LetterBox, Scout, existing};
use crate::error::RunError;
use crate::handler::Topics;
use crate::kafka::Topic;
use crate::limits::Limits;

#[derive(Debug, Clone)]
pub(crate) struct Destinations {
    pub(crate) topics: Arc<Topics>,
    /// Where dead letters go, if there are any.
    pub(crate) letters: Option<LetterBox>,
    pub(crate) limits: Limits,
}

impl Destinations {
    /// Asks Kafka for the topics and their limits.
    ///
    /// # Errors
    /// One of the topics does not exist.
    pub(crate) async fn find(config: &Config, scout: &Scout) -> Result<Self, RunError> {
        let named = |topic: &String| -> Arc<str> { Arc::from(topic.as_str()) };
        let outputs: Vec<Arc<str>> = config.outputs.iter().map(named).collect();
        let letters: Vec<Arc<str>> = config.dead_letters.iter().map(named).collect();
        let all = outputs.iter().chain(&letters).cloned();
        let limits = Limits::new(all, &config.cluster);
        let outputs = existing(scout, &outputs, Duration::ZERO).await?;
        let letters = existing(scout, &letters, Duration::ZERO).await?;
        limits.learn(scout).await;
        let letter_box = |topic: Topic| LetterBox {
            limit: limits.of(&topic.name),
            topic: topic.name,
            partitions: topic.partitions,
            group: config.cluster.group.clone(),
        };
        Ok(Self {
            topics: Arc::new(Topics::new(&outputs, |topic| limits.of(topic))),
            letters: letters.into_iter().next().map(letter_box),
            limits,
        })
    }
}
