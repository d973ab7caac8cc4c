//! One process of the payments service.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use countersign::store::{Journal, open_sled_for_inspection};
use countersign_testkit::broker::LocalKafka;

/// Orders per second and process: slow enough to be killed in the middle.
const RATE: &str = "12000";

/// A running process; it does not outlive this.
#[derive(Debug)]
pub(crate) struct Payments {
    child: Child,
    store: PathBuf,
}

impl Payments {
    /// Starts the example `payments`, which is built beside this one.
    pub(crate) fn start(
        kafka: &LocalKafka,
        stores: &Path,
        instance: &str,
    ) -> Result<Self, Box<dyn Error>> {
        let program = std::env::current_exe()?.with_file_name("payments");
        let store = stores.join(instance);
        let log = File::options()
            .create(true)
            .append(true)
            .open(stores.join(format!("{instance}.log")))?;
        let child = Command::new(&program)
            .args(["--brokers", kafka.bootstrap(), "--instance", instance, "--store"])
            .arg(&store)
            .args(["--rate", RATE])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}; build the examples first", program.display()))?;
        Ok(Self { child, store })
    }

    /// Kills it with `SIGKILL`.
    pub(crate) fn kill(&mut self) -> Result<(), Box<dyn Error>> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn finish(&mut self) -> Result<(), Box<dyn Error>> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("payments ended with {status}").into()) }
    }

    /// The store, which a running process keeps to itself.
    pub(crate) fn journal(&self) -> Result<Journal, Box<dyn Error>> {
        Ok(Journal::inspect(Box::new(open_sled_for_inspection(&self.store)?))?)
    }
}

impl Drop for Payments {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
