//! A peer's process, and what it and the broker use while it runs.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use countersign_testkit::process::processor_time;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

/// What had been used at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sample {
    /// Milliseconds since the epoch, to be compared with the broker's timestamps.
    at_ms: f64,
    client_cpu_s: f64,
    broker_cpu_s: f64,
    peak_bytes: u64,
}

/// A peer that runs. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    sampler: Option<JoinHandle<io::Result<Vec<Sample>>>>,
}

/// A peer that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    samples: Vec<Sample>,
}

impl Running {
    /// Starts a peer, whose output goes to `log`.
    pub(crate) fn start(mut command: Command, log: &Path, broker: u32) -> io::Result<Self> {
        let log = File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Sample { at_ms: now_ms(), ..sample(None, broker)? };
        let child = command.spawn().map_err(|error| {
            let program = command.get_program().display();
            io::Error::new(error.kind(), format!("starting {program}: {error}"))
        })?;
        let pid = child.id();
        let sampler = thread::spawn(move || watch(pid, broker, started));
        Ok(Self { child, sampler: Some(sampler) })
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.sampler.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::TERM)?)
    }

    /// Waits for its end, and kills it after `patience`.
    pub(crate) fn wait(mut self, patience: Duration) -> io::Result<Ended> {
        let deadline = Instant::now() + patience;
        while !self.has_ended() {
            if Instant::now() >= deadline {
                self.child.kill()?;
            }
            thread::sleep(SAMPLE_INTERVAL);
        }
        let sampler = self.sampler.take().map(JoinHandle::join);
        // The sampler does not panic; what it could not read is an error of its own.
        let samples = sampler.and_then(Result::ok).unwrap_or_else(|| Ok(Vec::new()))?;
        Ok(Ended { status: self.child.wait()?, samples })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After wait() it is reaped already, and these do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// When it was started, in milliseconds since the epoch.
    pub(crate) fn started_ms(&self) -> f64 {
        self.samples.first().map_or(0.0, |sample| sample.at_ms)
    }

    /// The most memory it had resident.
    ///
    /// Not `ru_maxrss`: that of a child also counts what its parent had when it was started.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.samples.iter().map(|sample| sample.peak_bytes).max().unwrap_or_default()
    }

    /// The client's CPU time in all.
    pub(crate) fn client_cpu_s(&self) -> f64 {
        self.samples.last().map_or(0.0, |sample| sample.client_cpu_s)
    }

    /// How many CPUs the client kept busy between two moments.
    pub(crate) fn cpus(&self, from_ms: f64, to_ms: f64) -> f64 {
        (self.cpu_s_at(to_ms).0 - self.cpu_s_at(from_ms).0) * 1e3 / (to_ms - from_ms).max(1.0)
    }

    /// CPU time of client and broker up to a moment, between samples in proportion.
    pub(crate) fn cpu_s_at(&self, at_ms: f64) -> (f64, f64) {
        let after = self.samples.partition_point(|sample| sample.at_ms < at_ms);
        let before = self.samples.get(after.saturating_sub(1)).copied().unwrap_or_default();
        let Some(after) = self.samples.get(after) else {
            return (before.client_cpu_s, before.broker_cpu_s);
        };
        let span = after.at_ms - before.at_ms;
        let part = if span > 0.0 { (at_ms - before.at_ms) / span } else { 0.0 };
        let between = |from: f64, to: f64| from + (to - from) * part;
        (
            between(before.client_cpu_s, after.client_cpu_s),
            between(before.broker_cpu_s, after.broker_cpu_s),
        )
    }
}

/// Samples until the process has ended; it is not reaped, so that its last figures can be read.
fn watch(pid: u32, broker: u32, started: Sample) -> io::Result<Vec<Sample>> {
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let id = WaitId::Pid(id.ok_or_else(|| io::Error::other("no process has this id"))?);
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let mut samples = vec![started];
    loop {
        let ended = waitid(id.clone(), look)?.is_some();
        samples.push(sample(Some(pid), broker)?);
        if ended {
            return Ok(samples);
        }
        thread::sleep(SAMPLE_INTERVAL);
    }
}

fn sample(pid: Option<u32>, broker: u32) -> io::Result<Sample> {
    Ok(Sample {
        at_ms: now_ms(),
        client_cpu_s: pid.map_or(Ok(0.0), cpu_s)?,
        broker_cpu_s: cpu_s(broker)?,
        peak_bytes: pid.map_or(Ok(0), peak_bytes)?,
    })
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3
}

fn cpu_s(pid: u32) -> io::Result<f64> {
    processor_time(pid).map(|time| time.as_secs_f64())
}

/// The high-water mark of the resident memory; 0 once the process has ended.
fn peak_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kilobytes.unwrap_or_default() * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_watched_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo $i"]);
        let log = dir.path().join("log");
        let running = Running::start(command, &log, std::process::id()).unwrap();
        let ended = running.wait(Duration::from_secs(60)).unwrap();
        assert!(ended.status.success());
        assert_eq!(fs::read_to_string(log).unwrap(), "200000\n");
        assert!(ended.client_cpu_s() > 0.0);
        assert!(ended.peak_bytes() > 100_000, "{}", ended.peak_bytes());
        let end = ended.samples.last().unwrap().at_ms;
        assert!(ended.cpu_s_at(end).0 >= ended.cpu_s_at(ended.started_ms()).0);
    }
}
