//! What the system tells of a process.

use std::fs;
use std::io;
use std::time::Duration;

/// User and system time of all threads of a process so far.
///
/// # Errors
/// The process is not there, or the system does not tell.
pub fn processor_time(pid: u32) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks =
        ticks(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat: {text}")))?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis(ticks * 1_000 / per_second))
}

/// `utime` and `stime` of a `stat` file. The name before them may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stand_after_the_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 9 9 20 0 1 0 5";
        assert_eq!(ticks(stat), Some(175));
    }
}
