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

/// What a process has at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Its memory that is in the machine's.
    pub resident_bytes: u64,
    /// Its threads.
    pub threads: u64,
    /// Its open file descriptors.
    pub descriptors: u64,
}

/// What a process has now.
///
/// # Errors
/// The process is not there, or the system does not tell.
pub fn resources(pid: u32) -> io::Result<Resources> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let number = |name| {
        field(&status, name).ok_or_else(|| io::Error::other(format!("/proc/{pid}/status: {name}")))
    };
    Ok(Resources {
        // In kB, which are 1,024 bytes here.
        resident_bytes: number("VmRSS")? * 1_024,
        threads: number("Threads")?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
    })
}

/// `utime` and `stime` of a `stat` file. The name before them may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// A number of a `status` file.
fn field(status: &str, name: &str) -> Option<u64> {
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| *found == name)?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stand_after_the_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 9 9 20 0 1 0 5";
        assert_eq!(ticks(stat), Some(175));
    }

    #[test]
    fn resources_of_this_process_are_told() {
        let open = |_| fs::File::open("/proc/self/stat").expect("it is there");
        let held: Vec<fs::File> = (0..50).map(open).collect();
        let told = resources(std::process::id()).expect("it runs");
        assert!(told.descriptors > held.len() as u64, "{told:?}");
        // The test has a thread of its own.
        assert!(told.threads >= 2, "{told:?}");
        assert!(told.resident_bytes > 500_000, "{told:?}");
    }
}
