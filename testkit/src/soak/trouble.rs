//! What happens to processes and brokers while messages are handled.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::broker::LocalKafka;

use super::pauses::Watch;
use super::usage::Samples;
use super::{POLL_INTERVAL, Soak, SoakError};

/// One kill in so many takes the store directory with it. Not an even number: both are to lose it.
const KILLS_PER_LOST_STORE: u32 = 3;

/// How long a broker that is restarted is away: longer than the others need to take it for gone.
const AWAY: Duration = Duration::from_secs(5);

/// How often what a process uses is measured.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

impl Soak<'_> {
    /// Kills the processes in turn, and takes the first broker away in the middle.
    pub(super) fn kill_until(
        &mut self,
        interval: Duration,
        mut broker_away: Option<Duration>,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), SoakError> {
        let started = Instant::now();
        let mut due = started + interval;
        while !is_over() {
            sleep(POLL_INTERVAL);
            if started.elapsed() >= self.settings.time / 2
                && let Some(away) = broker_away.take()
            {
                for broker in self.cluster.brokers().iter().take(1) {
                    broker.kill()?;
                    sleep(away);
                    broker.restart()?;
                }
                self.report.broker_away = away;
                due = Instant::now() + interval;
            }
            if Instant::now() >= due {
                self.kill()?;
                due += interval;
            }
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<(), SoakError> {
        let kills = usize::try_from(self.report.kills).unwrap_or_default();
        let turn = kills % self.processes.len();
        let Some((instance, process)) = self.processes.get_mut(turn) else { return Ok(()) };
        if let Some(status) = process.kill()? {
            return Err(SoakError::Ended { instance, status });
        }
        self.report.kills += 1;
        if self.report.kills.is_multiple_of(KILLS_PER_LOST_STORE) {
            self.workers.remove_store(instance)?;
            self.report.lost_stores += 1;
        }
        *process = self.workers.start(instance)?;
        Ok(())
    }

    /// Restarts the brokers in turn.
    pub(super) fn restart_until(
        &mut self,
        interval: Duration,
        watch: &Watch,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), SoakError> {
        let cluster = self.cluster;
        let mut due = Instant::now() + interval;
        let mut turns = cluster.brokers().iter().cycle();
        while !is_over() {
            sleep(POLL_INTERVAL);
            self.look_after_processes()?;
            if Instant::now() >= due
                && let Some(broker) = turns.next()
            {
                cluster.wait_in_sync()?;
                due = Instant::now() + interval;
                self.restart(broker, watch)?;
            }
        }
        Ok(())
    }

    /// Ends a broker, the next one in the other way, and starts it again.
    fn restart(&mut self, broker: &LocalKafka, watch: &Watch) -> Result<(), SoakError> {
        let gone = Instant::now();
        if self.report.restarts.is_multiple_of(2) { broker.stop() } else { broker.kill() }?;
        sleep(AWAY);
        broker.restart()?;
        watch.was_away(gone, Instant::now());
        self.report.restarts += 1;
        Ok(())
    }

    /// Measures what the process uses.
    pub(super) fn measure_until(
        &mut self,
        samples: &mut Samples,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), SoakError> {
        let started = Instant::now();
        let mut due = started;
        while !is_over() {
            sleep(POLL_INTERVAL);
            self.look_after_processes()?;
            if Instant::now() >= due {
                for (instance, process) in &self.processes {
                    let store = self.workers.store(instance);
                    samples.take(started.elapsed(), process.pid(), &store)?;
                }
                due += SAMPLE_INTERVAL;
            }
        }
        Ok(())
    }

    /// None may end by itself.
    fn look_after_processes(&mut self) -> Result<(), SoakError> {
        for &mut (instance, ref mut process) in &mut self.processes {
            if let Some(status) = process.ended()? {
                return Err(SoakError::Ended { instance, status });
            }
        }
        Ok(())
    }
}
