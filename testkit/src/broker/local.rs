//! The local Kafka itself.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::jvm::Jvm;
use super::options::{Member, Ports, Proxied, server_properties};
use super::topics::Replicas;
use super::{LocalKafkaError, LocalKafkaOptions, jars, java, ports, topics};
use crate::proxy::KafkaProxy;

const LOG_TAIL_LINES: usize = 30;
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Another process may take a port between our look and the broker's start.
pub(super) const START_ATTEMPTS: u32 = 3;

/// One broker of Apache Kafka, running on loopback: alone, or among those of a
/// [`LocalCluster`](super::LocalCluster). Dropping it kills it and removes its data.
///
/// All methods take `&self`, so that one thread can kill the broker while others use it.
#[derive(Debug)]
pub struct LocalKafka {
    // Declared before the directory: the process must be gone before its files are.
    jvm: Mutex<Option<Jvm>>,
    id: u16,
    bootstrap: String,
    args: Vec<String>,
    dir: Dir,
    ready_timeout: Duration,
}

#[derive(Debug)]
enum Dir {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Dir {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(dir) => dir,
        }
    }
}

impl LocalKafka {
    /// Starts a broker and waits until it answers.
    ///
    /// # Errors
    /// Java or Maven is missing, the jars cannot be fetched, or the broker does not come up.
    pub fn start() -> Result<Self, LocalKafkaError> {
        Self::start_with(&LocalKafkaOptions::default())
    }

    /// Starts a broker with other settings.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(options: &LocalKafkaOptions) -> Result<Self, LocalKafkaError> {
        Self::start_advertising(options, None).map(|(kafka, _)| kafka)
    }

    /// Starts a broker behind a proxy.
    ///
    /// Clients that bootstrap at the proxy stay on it, those that use
    /// [`bootstrap`](Self::bootstrap) reach the broker directly.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_proxied(
        options: &LocalKafkaOptions,
    ) -> Result<(Self, KafkaProxy), LocalKafkaError> {
        let listener = ports::reserve().map_err(LocalKafkaError::io("binding the proxy's port"))?;
        let address =
            listener.local_addr().map_err(LocalKafkaError::io("asking for the proxy's port"))?;
        let (kafka, ports) = Self::start_advertising(options, Some(address.port()))?;
        let target = ports.proxied.map_or(ports.client, |proxied| proxied.listener);
        let proxy = KafkaProxy::start(listener, ([127, 0, 0, 1], target).into())
            .map_err(LocalKafkaError::io("starting the proxy"))?;
        Ok((kafka, proxy))
    }

    /// The broker that all tests of this process share; started by the first that asks.
    ///
    /// # Errors
    /// As [`start`](Self::start), for every caller.
    pub fn shared() -> Result<&'static Self, &'static LocalKafkaError> {
        static SHARED: OnceLock<Result<LocalKafka, LocalKafkaError>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    fn start_advertising(
        options: &LocalKafkaOptions,
        proxy_port: Option<u16>,
    ) -> Result<(Self, Ports), LocalKafkaError> {
        let class_path = jars::class_path(options.version)?;
        let mut attempt = 1;
        loop {
            let ports = choose_ports(options.port, proxy_port)
                .map_err(LocalKafkaError::io("looking for free ports"))?;
            let member = Member { id: 1, ports, controllers: &[ports.controller], brokers: 1 };
            let cluster_id = java::new_cluster_id();
            let prepared = Self::prepare(options, &member, &class_path, &cluster_id)?;
            match prepared.restart() {
                Err(error) if error.is_port_taken() && attempt < START_ATTEMPTS => attempt += 1,
                started => return started.map(|()| (prepared, ports)),
            }
        }
    }

    /// Writes what the broker needs to be started with [`restart`](Self::restart).
    pub(super) fn prepare(
        options: &LocalKafkaOptions,
        member: &Member<'_>,
        class_path: &str,
        cluster_id: &str,
    ) -> Result<Self, LocalKafkaError> {
        let dir = match &options.dir {
            Some(dir) => Dir::Kept(dir.clone()),
            None => Dir::Temporary(
                tempfile::Builder::new()
                    .prefix("countersign-kafka-")
                    .tempdir()
                    .map_err(LocalKafkaError::io("making a temporary directory"))?,
            ),
        };
        let data = dir.path().join("data");
        fs::create_dir_all(&data).map_err(LocalKafkaError::file("making", &data))?;
        let properties = dir.path().join("server.properties");
        fs::write(&properties, server_properties(options, member, &data))
            .map_err(LocalKafkaError::file("writing", &properties))?;
        java::format(class_path, cluster_id, &properties, &data)?;
        Ok(Self {
            jvm: Mutex::new(None),
            id: member.id,
            bootstrap: format!("127.0.0.1:{}", member.ports.client),
            args: java::broker_args(options, class_path, &properties),
            dir,
            ready_timeout: options.ready_timeout,
        })
    }

    /// The broker's number in its cluster, from 1.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// Where clients start: `host:port`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The broker's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.jvm().as_ref().map(Jvm::pid)
    }

    /// The directory with the broker's `data`, `server.properties` and `broker.log`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Creates a topic with the broker's default settings and waits until it can be used.
    ///
    /// # Errors
    /// The broker refuses, or does not do it in time.
    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<(), LocalKafkaError> {
        self.create_topic_with(name, partitions, &[])
    }

    /// Creates a topic with topic settings and waits until it can be used.
    ///
    /// # Errors
    /// The broker refuses, or does not do it in time.
    pub fn create_topic_with(
        &self,
        name: &str,
        partitions: u32,
        configs: &[(&str, &str)],
    ) -> Result<(), LocalKafkaError> {
        topics::create(&self.bootstrap, name, partitions, Replicas::Default, configs)
    }

    /// Changes a topic's settings: those that are not given get their defaults. It may take a
    /// moment until they hold.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn alter_topic(&self, name: &str, configs: &[(&str, &str)]) -> Result<(), LocalKafkaError> {
        topics::alter(&self.bootstrap, name, configs)
    }

    /// Deletes a topic and waits until it is gone.
    ///
    /// # Errors
    /// The broker refuses, or does not do it in time.
    pub fn delete_topic(&self, name: &str) -> Result<(), LocalKafkaError> {
        topics::delete(&self.bootstrap, name)
    }

    /// Kills the broker with SIGKILL; its data stays for [`restart`](Self::restart).
    ///
    /// # Errors
    /// The system does not let us.
    pub fn kill(&self) -> Result<(), LocalKafkaError> {
        match self.jvm().take() {
            Some(mut jvm) => jvm.kill().map_err(LocalKafkaError::io("killing the broker")),
            None => Ok(()),
        }
    }

    /// Stops the broker in order; its data stays for [`restart`](Self::restart).
    ///
    /// # Errors
    /// The system does not let us.
    pub fn stop(&self) -> Result<(), LocalKafkaError> {
        match self.jvm().take() {
            Some(mut jvm) => {
                jvm.terminate(STOP_TIMEOUT).map_err(LocalKafkaError::io("stopping the broker"))
            }
            None => Ok(()),
        }
    }

    /// Starts the broker again on its ports and data, after killing it if it runs, and waits until
    /// it answers.
    ///
    /// # Errors
    /// The broker does not come up.
    pub fn restart(&self) -> Result<(), LocalKafkaError> {
        self.launch()?;
        self.wait_ready()
    }

    /// Starts the broker, and does not wait for it.
    pub(super) fn launch(&self) -> Result<(), LocalKafkaError> {
        self.kill()?;
        let log = self.open_log()?;
        let remove = match &self.dir {
            Dir::Temporary(dir) => Some(dir.path()),
            Dir::Kept(_) => None,
        };
        let jvm = Jvm::spawn(&self.args, &log, remove)
            .map_err(LocalKafkaError::io("starting the broker"))?;
        *self.jvm() = Some(jvm);
        Ok(())
    }

    /// Stops the broker's process in its tracks with SIGSTOP: connections stay open, nothing
    /// answers.
    ///
    /// # Errors
    /// The broker does not run.
    pub fn pause(&self) -> Result<(), LocalKafkaError> {
        self.signal(Signal::STOP)
    }

    /// Lets the process go on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// The broker does not run.
    pub fn resume(&self) -> Result<(), LocalKafkaError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), LocalKafkaError> {
        let mut jvm = self.jvm();
        let jvm = jvm.as_mut().ok_or(LocalKafkaError::NotRunning)?;
        jvm.signal(signal).map_err(LocalKafkaError::io("signalling the broker"))
    }

    fn jvm(&self) -> MutexGuard<'_, Option<Jvm>> {
        self.jvm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("broker.log")
    }

    fn open_log(&self) -> Result<File, LocalKafkaError> {
        let path = self.log_path();
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(LocalKafkaError::file("opening", &path))
    }

    fn log_tail(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_TAIL_LINES)..).unwrap_or_default().join("\n")
    }

    /// Waits until the broker answers.
    pub(super) fn wait_ready(&self) -> Result<(), LocalKafkaError> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.exited()? {
                self.kill()?;
                return Err(LocalKafkaError::Exited { status, log_tail: self.log_tail() });
            }
            // A client is only made once something listens: its own retries are slower.
            if std::net::TcpStream::connect(&self.bootstrap).is_ok()
                && topics::answers(&self.bootstrap, self.id, METADATA_TIMEOUT).map_err(
                    |source| LocalKafkaError::Kafka {
                        call: "creating a client".to_owned(),
                        source,
                    },
                )?
            {
                return Ok(());
            }
            if started.elapsed() >= self.ready_timeout {
                let log_tail = self.log_tail();
                self.kill()?;
                return Err(LocalKafkaError::NotReady { waited: self.ready_timeout, log_tail });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn exited(&self) -> Result<Option<std::process::ExitStatus>, LocalKafkaError> {
        match self.jvm().as_mut() {
            Some(jvm) => jvm.exited().map_err(LocalKafkaError::io("looking after the broker")),
            None => Err(LocalKafkaError::NotRunning),
        }
    }
}

/// All listeners are held until all ports are known, so that they differ.
fn choose_ports(client: Option<u16>, proxy: Option<u16>) -> std::io::Result<Ports> {
    let listeners = [ports::reserve()?, ports::reserve()?, ports::reserve()?];
    let [free, controller, proxied] = &listeners;
    Ok(Ports {
        client: client.map_or_else(|| free.local_addr().map(|address| address.port()), Ok)?,
        controller: controller.local_addr()?.port(),
        proxied: match proxy {
            Some(advertised) => {
                Some(Proxied { listener: proxied.local_addr()?.port(), advertised })
            }
            None => None,
        },
    })
}
