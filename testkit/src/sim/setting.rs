//! What all instances of a simulation share.

use std::sync::Arc;

use crate::model::ModelKafka;

use super::journal::Journal;
use super::work::Temper;
use super::world::World;

/// What all instances share.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) world: Arc<World>,
    pub(super) kafka: ModelKafka,
    pub(super) journal: Journal,
    pub(super) temper: Temper,
}

impl Setting {
    pub(super) fn new(world: &World, kafka: &ModelKafka, journal: &Journal) -> Self {
        Self {
            world: Arc::new(world.clone()),
            kafka: kafka.clone(),
            journal: journal.clone(),
            temper: Temper::new(world, journal),
        }
    }
}
