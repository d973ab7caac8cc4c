//! Several brokers that are one Kafka.

use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::local::START_ATTEMPTS;
use super::options::{Member, Ports};
use super::topics::Replicas;
use super::{LocalKafka, LocalKafkaError, LocalKafkaOptions, jars, java, ports, topics};

/// With so many brokers each is a controller, and the controllers go on without any one of them.
const CONTROLLERS: usize = 3;

/// How many partitions the internal topics have, as the brokers are told.
const INTERNAL_PARTITIONS: u32 = 4;

/// How long replicas may take until they have what they missed.
const IN_SYNC_TIMEOUT: Duration = Duration::from_secs(60);

/// Brokers of Apache Kafka, running on loopback. Dropping it kills them and removes their data.
///
/// Each can be stopped, killed and restarted by itself. Of three or more the first three are
/// controllers too, so that any one may be away; topics have three replicas, of which two must have
/// a record (`min.insync.replicas`). Of two the first is the controller and is needed by the
/// second; topics have one replica.
#[derive(Debug)]
pub struct LocalCluster {
    brokers: Vec<LocalKafka>,
    bootstrap: String,
}

impl LocalCluster {
    /// Starts so many brokers and waits until all answer.
    ///
    /// # Errors
    /// Java or Maven is missing, the jars cannot be fetched, or a broker does not come up.
    pub fn start(brokers: u16, options: &LocalKafkaOptions) -> Result<Self, LocalKafkaError> {
        let class_path = jars::class_path(options.version)?;
        let mut attempt = 1;
        loop {
            match Self::start_once(brokers, options, &class_path) {
                Err(error) if error.is_port_taken() && attempt < START_ATTEMPTS => attempt += 1,
                started => return started,
            }
        }
    }

    fn start_once(
        brokers: u16,
        options: &LocalKafkaOptions,
        class_path: &str,
    ) -> Result<Self, LocalKafkaError> {
        let ports = choose_ports(brokers, options.port)
            .map_err(LocalKafkaError::io("looking for free ports"))?;
        let controllers: Vec<u16> = ports.iter().map(|ports| ports.controller).collect();
        let voters = if controllers.len() < CONTROLLERS { 1 } else { CONTROLLERS };
        let controllers = controllers.get(..voters).unwrap_or_default();
        let cluster_id = java::new_cluster_id();
        let prepare = |(id, ports)| {
            let member = Member { id, ports, controllers, brokers };
            LocalKafka::prepare(&of_broker(id, brokers, options), &member, class_path, &cluster_id)
        };
        let brokers: Vec<LocalKafka> = thread::scope(|scope| {
            let prepare = &prepare;
            let started: Vec<_> =
                (1..).zip(ports).map(|broker| scope.spawn(move || prepare(broker))).collect();
            let finished = started.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            finished.collect::<Result<_, _>>()
        })?;
        // None of several controllers answers while it is alone.
        brokers.iter().try_for_each(LocalKafka::launch)?;
        brokers.iter().try_for_each(LocalKafka::wait_ready)?;
        let addresses: Vec<&str> = brokers.iter().map(LocalKafka::bootstrap).collect();
        Ok(Self { bootstrap: addresses.join(","), brokers })
    }

    /// Where clients start: `host:port` of each broker, separated by commas.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The brokers: the one with the id 1 is the first.
    pub fn brokers(&self) -> &[LocalKafka] {
        &self.brokers
    }

    /// Creates a topic with the brokers' default settings and waits until it can be used.
    ///
    /// # Errors
    /// The brokers refuse, or do not do it in time.
    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<(), LocalKafkaError> {
        topics::create(&self.bootstrap, name, partitions, Replicas::Default, &[])
    }

    /// Creates a topic with all of its partitions on these brokers, of which the first leads.
    ///
    /// # Errors
    /// The brokers refuse, or do not do it in time.
    pub fn create_topic_on(
        &self,
        brokers: &[i32],
        name: &str,
        partitions: u32,
    ) -> Result<(), LocalKafkaError> {
        topics::create(&self.bootstrap, name, partitions, Replicas::On(brokers), &[])
    }

    /// Makes these brokers, of which the first leads, the coordinators of all consumer groups. It
    /// must be called before the first group joins or is asked for.
    ///
    /// # Errors
    /// The brokers refuse, or do not do it in time.
    pub fn place_group_coordinator(&self, brokers: &[i32]) -> Result<(), LocalKafkaError> {
        self.create_internal(brokers, "__consumer_offsets")
    }

    /// Makes these brokers, of which the first leads, the coordinators of all transactions. It must
    /// be called before the first transactional producer starts.
    ///
    /// # Errors
    /// The brokers refuse, or do not do it in time.
    pub fn place_transaction_coordinator(&self, brokers: &[i32]) -> Result<(), LocalKafkaError> {
        self.create_internal(brokers, "__transaction_state")
    }

    /// Waits until each replica has what its leader has. Before that it cannot be spared: another
    /// broker's end would leave too few.
    ///
    /// # Errors
    /// It takes longer than a minute.
    pub fn wait_in_sync(&self) -> Result<(), LocalKafkaError> {
        topics::wait_in_sync(&self.bootstrap, IN_SYNC_TIMEOUT)
    }

    fn create_internal(&self, brokers: &[i32], name: &str) -> Result<(), LocalKafkaError> {
        let configs = [("cleanup.policy", "compact")];
        let replicas = Replicas::On(brokers);
        topics::create(&self.bootstrap, name, INTERNAL_PARTITIONS, replicas, &configs)
    }
}

/// What is set for one of the brokers.
fn of_broker(id: u16, brokers: u16, options: &LocalKafkaOptions) -> LocalKafkaOptions {
    let own_dir = |dir: &PathBuf| if brokers == 1 { dir.clone() } else { dir.join(id.to_string()) };
    LocalKafkaOptions { dir: options.dir.as_ref().map(own_dir), ..options.clone() }
}

/// All listeners are held until all ports are known, so that they differ.
fn choose_ports(brokers: u16, first: Option<u16>) -> std::io::Result<Vec<Ports>> {
    let reserve = |_| Ok((ports::reserve()?, ports::reserve()?));
    let listeners = (0..brokers).map(reserve).collect::<std::io::Result<Vec<_>>>()?;
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    let chosen = (0..).zip(&listeners).map(|(index, (client, controller))| {
        let client = first.map_or_else(|| port(client), |first| Ok(first.saturating_add(index)))?;
        Ok(Ports { client, controller: port(controller)?, proxied: None })
    });
    chosen.collect()
}
