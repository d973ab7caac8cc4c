//! Opening a journal: whose it is, and what it knows.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use countersign_statemachine::{PartitionId, Run, Runs};

use super::{Journal, JournalOptions, Session, Writer};
use crate::store::prune::Sweep;
use crate::store::record::{
    AuthorRecord, FORMAT, Identity, IdentityRecord, RunRecord, Sequence, SessionRecord, Stored,
    StoredTransaction, TopicRecord,
};
use crate::store::{Batch, KeyRange, Order, Store, StoreError};

impl Journal {
    /// Opens the journal of `identity` for work; a new store becomes its.
    ///
    /// # Errors
    /// The store belongs to another cluster, group or instance, or has another format; or it is
    /// damaged, full or failed.
    pub fn open(
        store: Box<dyn Store>,
        identity: &Identity,
        options: JournalOptions,
    ) -> Result<Self, StoreError> {
        let mut batch = Batch::default();
        if let Some(stored) = identity_of(&*store)? {
            check_identity(&stored, identity)?;
        } else {
            let record = IdentityRecord { format: FORMAT, identity: identity.clone() };
            batch.put(record.key(), record.value());
        }
        let last = last_of::<SessionRecord>(&*store)?.map_or(0, |session| session.number);
        let session = SessionRecord {
            number: last + 1,
            incarnation: options.incarnation,
            opened_at_ms: options.opened_at_ms,
        };
        batch.put(session.key(), session.value());
        let next = Sequence::first_of(session.number);
        let session = Session { next, options, sweep: Sweep::default() };
        let mut journal = Self::load(store, identity.clone(), Writer::Open(Box::new(session)))?;
        journal.write(&batch)?;
        journal.flush()?;
        Ok(journal)
    }

    /// Opens whoever's journal to look at it.
    ///
    /// # Errors
    /// The store has another format, no identity, or is damaged.
    pub fn inspect(store: Box<dyn Store>) -> Result<Self, StoreError> {
        let Some(identity) = identity_of(&*store)? else {
            return Err(StoreError::Corrupt { what: "it has no identity record".to_owned() });
        };
        let closed = Writer::Closed("it was opened for inspection".to_owned());
        Self::load(store, identity, closed)
    }

    fn load(store: Box<dyn Store>, identity: Identity, writer: Writer) -> Result<Self, StoreError> {
        let first = nearest::<StoredTransaction>(&*store, Order::Rising)?;
        let last = nearest::<StoredTransaction>(&*store, Order::Falling)?;
        let ordinals = match (first, last) {
            (Some(first), Some(last)) => first.ordinal.0..last.ordinal.0 + 1,
            (_, _) => 0..0,
        };
        let mut journal = Self {
            store,
            identity,
            writer,
            partitions: BTreeMap::new(),
            numbers: HashMap::new(),
            authors: BTreeMap::new(),
            author_numbers: HashMap::new(),
            ordinals,
            in_doubt: HashMap::new(),
        };
        journal.load_names()?;
        Ok(journal)
    }

    fn load_names(&mut self) -> Result<(), StoreError> {
        let mut runs: BTreeMap<PartitionId, Vec<Run>> = BTreeMap::new();
        each::<RunRecord>(&*self.store, |record| {
            runs.entry(record.partition).or_default().push(record.run);
        })?;
        let mut topics = Vec::new();
        each::<TopicRecord>(&*self.store, |record| topics.push(record))?;
        for topic in topics {
            let runs = Runs::restore(runs.remove(&topic.id).unwrap_or_default());
            self.add_partition(topic, runs);
        }
        let mut authors = Vec::new();
        each::<AuthorRecord>(&*self.store, |record| authors.push(record))?;
        for author in authors {
            self.author_numbers.insert((author.instance.clone(), author.incarnation), author.id);
            self.authors.insert(author.id, author);
        }
        Ok(())
    }
}

fn identity_of(store: &dyn Store) -> Result<Option<Identity>, StoreError> {
    let key = [IdentityRecord::KIND];
    let Some(value) = store.get(&key)? else { return Ok(None) };
    let IdentityRecord { format, identity } = IdentityRecord::read(&key, &value)?;
    match format.cmp(&FORMAT) {
        std::cmp::Ordering::Equal => Ok(Some(identity)),
        std::cmp::Ordering::Greater => {
            Err(StoreError::NewerFormat { stored: format, known: FORMAT })
        }
        std::cmp::Ordering::Less => Err(StoreError::OlderFormat { stored: format, known: FORMAT }),
    }
}

fn check_identity(stored: &Identity, configured: &Identity) -> Result<(), StoreError> {
    let pair = |field: fn(&Identity) -> &String| {
        (field(stored) != field(configured))
            .then(|| (field(stored).clone(), field(configured).clone()))
    };
    if let Some((stored, configured)) = pair(|identity| &identity.cluster_id) {
        return Err(StoreError::OtherCluster { stored, configured });
    }
    if let Some((stored, configured)) = pair(|identity| &identity.group) {
        return Err(StoreError::OtherGroup { stored, configured });
    }
    if let Some((stored, configured)) = pair(|identity| &identity.instance) {
        return Err(StoreError::OtherInstance { stored, configured });
    }
    Ok(())
}

fn last_of<R: Stored>(store: &dyn Store) -> Result<Option<R>, StoreError> {
    nearest(store, Order::Falling)
}

/// The first record of a kind, or with [`Order::Falling`] the last.
pub(super) fn nearest<R: Stored>(store: &dyn Store, order: Order) -> Result<Option<R>, StoreError> {
    let mut found = None;
    visit::<R>(store, &KeyRange::of_prefix(&[R::KIND]), order, |record| {
        found = Some(record);
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// Every record of a kind, in key order.
pub(super) fn each<R: Stored>(
    store: &dyn Store,
    mut take: impl FnMut(R),
) -> Result<(), StoreError> {
    visit::<R>(store, &KeyRange::of_prefix(&[R::KIND]), Order::Rising, |record| {
        take(record);
        ControlFlow::Continue(())
    })
}

/// The records of a range, all of one kind, until the visitor breaks off.
pub(in crate::store) fn visit<R: Stored>(
    store: &dyn Store,
    range: &KeyRange,
    order: Order,
    mut visitor: impl FnMut(R) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut malformed = None;
    store.scan(range, order, &mut |key, value| match R::read(key, value) {
        Ok(record) => visitor(record),
        Err(error) => {
            malformed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    malformed.map_or(Ok(()), |source| Err(source.into()))
}
