//! This machine: what it is, and what a process on it uses.

use crate::Error;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The CPUs this process may use.
pub fn allowed_cpus() -> Result<Vec<usize>, Error> {
    let set = sched_getaffinity(Pid::from_raw(0)).map_err(|e| Error::io("CPU affinity", e))?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect())
}

/// Binds a thread to `cpus`; 0 is the caller, whose later children inherit it.
pub fn bind_thread(thread: i32, cpus: &[usize]) -> Result<(), Error> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu).map_err(|e| Error::io("CPU number", e))?;
    }
    sched_setaffinity(Pid::from_raw(thread), &set).map_err(|e| Error::io("CPU affinity", e))
}

/// Runs `f` bound to `cpus`, then goes back to `after`.
pub fn bound<T>(
    cpus: &[usize],
    after: &[usize],
    f: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    bind_thread(0, cpus)?;
    let result = f();
    bind_thread(0, after)?;
    result
}

/// CPU seconds of a process so far, guest included, from the scheduler's statistics of its threads (to the nanosecond).
pub fn cpu_seconds(pid: u32) -> Result<f64, Error> {
    let path = format!("/proc/{pid}/task");
    let mut sum = 0.0;
    for entry in fs::read_dir(&path).map_err(|e| Error::io(&path, e))?.flatten() {
        // A thread may end between the two.
        let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
        let nanoseconds = text.split_whitespace().next().and_then(|n| n.parse::<f64>().ok());
        sum += nanoseconds.unwrap_or(0.0) / 1e9;
    }
    Ok(sum)
}

/// CPU seconds of one thread of a process so far.
pub fn thread_seconds(pid: u32, thread: i32) -> Result<f64, Error> {
    schedstat(&format!("/proc/{pid}/task/{thread}/schedstat"))
}

/// CPU seconds of the calling thread so far.
pub fn thread_cpu_seconds() -> Result<f64, Error> {
    schedstat("/proc/thread-self/schedstat")
}

/// The first figure of the scheduler's statistics: nanoseconds on a CPU, here in seconds.
fn schedstat(path: &str) -> Result<f64, Error> {
    let text = fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let nanoseconds = text.split_whitespace().next().and_then(|n| n.parse::<f64>().ok());
    Ok(nanoseconds.unwrap_or(0.0) / 1e9)
}

/// Memory, threads and descriptors of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Memory that is its own alone (`Private_Dirty`: not the pages of the program's file), in KiB.
    pub private_kib: f64,
    /// Its share of all it has in memory, in KiB.
    pub pss_kib: f64,
    /// Threads.
    pub threads: f64,
    /// Open descriptors.
    pub descriptors: f64,
}

/// What a process uses now.
#[expect(clippy::cast_precision_loss, reason = "for reading")]
pub fn usage(pid: u32) -> Result<Usage, Error> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let count = |folder: &str| {
        let path = format!("/proc/{pid}/{folder}");
        fs::read_dir(&path).map(|entries| entries.count() as f64).map_err(|e| Error::io(&path, e))
    };
    Ok(Usage {
        private_kib: field(&text, "Private_Dirty:"),
        pss_kib: field(&text, "Pss:"),
        threads: count("task")?,
        descriptors: count("fd")?,
    })
}

/// The number after `name` in a text of /proc; zero when it is not there.
fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

/// Empties the page cache, of the whole host. Root's alone (Linux, admin-guide/sysctl/vm.rst, `drop_caches`).
pub fn drop_caches() -> std::io::Result<()> {
    nix::unistd::sync();
    fs::write("/proc/sys/vm/drop_caches", "3")
}

/// The kernel's search for pages that are alike, as busy as can be; as before when dropped. Root's alone.
#[derive(Debug)]
pub struct Ksm {
    before: [(&'static str, String); 3],
}

impl Ksm {
    /// Starts it.
    pub fn start() -> std::io::Result<Self> {
        let wanted = [("pages_to_scan", "20000"), ("sleep_millisecs", "5"), ("run", "1")];
        let [a, b, c] = wanted.map(|(name, _)| ksm(name).map(|value| (name, value)));
        let guard = Self { before: [a?, b?, c?] };
        for (name, value) in wanted {
            fs::write(format!("{KSM}{name}"), value)?;
        }
        Ok(guard)
    }

    /// Waits until everything has been looked at so many times.
    pub fn wait_for_scans(&self, scans: u64) -> std::io::Result<()> {
        let done = || ksm("full_scans")?.parse::<u64>().map_err(std::io::Error::other);
        let until = done()? + scans;
        let deadline = Instant::now() + Duration::from_secs(60);
        while done()? < until {
            if Instant::now() > deadline {
                return Err(std::io::Error::other("it does not come round"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Ksm {
    fn drop(&mut self) {
        // A host that did not look before stops looking.
        for (name, value) in &self.before {
            let _restored = fs::write(format!("{KSM}{name}"), value);
        }
    }
}

const KSM: &str = "/sys/kernel/mm/ksm/";

fn ksm(name: &str) -> std::io::Result<String> {
    Ok(fs::read_to_string(format!("{KSM}{name}"))?.trim().to_owned())
}

/// Load averages of 1, 5 and 15 minutes.
pub fn load() -> Vec<f64> {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).filter_map(|word| word.parse().ok()).collect()
}

/// The time now, as ISO 8601 in UTC.
pub fn date() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    iso_date(now.map_or(0, |since| since.as_secs()))
}

/// Seconds since 1970 as a date, by the civil calendar's 400-year cycle.
fn iso_date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400 + 719_468, seconds % 86400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Whether this CPU has VMX or SVM; without, KVM is a software one.
pub fn has_virtualization() -> bool {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or("");
    flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

/// What belongs beside every figure.
pub fn describe() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let memory = field(&read("/proc/meminfo"), "MemTotal:") / 1024.0;
    let kvm = match (Path::new("/dev/kvm").exists(), has_virtualization()) {
        (false, _) => "none",
        (true, true) => "hardware",
        (true, false) => "software (the CPU offers neither VMX nor SVM)",
    };
    json!({
        "cpu": model,
        "cpus": allowed_cpus().map_or(0, |cpus| cpus.len()),
        "memory_mib": memory.round(),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "kvm": kvm,
        "load": load(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(iso_date(0), "1970-01-01T00:00:00Z");
        assert_eq!(iso_date(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(iso_date(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(iso_date(1_795_290_729), "2026-11-21T19:52:09Z");
    }

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        let usage = usage(pid).unwrap();
        assert!(usage.private_kib > 0.0 && usage.pss_kib > 0.0, "{usage:?}");
        assert!(usage.threads >= 1.0 && usage.descriptors >= 3.0, "{usage:?}");
        assert!(cpu_seconds(pid).unwrap() > 0.0);
        assert!(super::usage(0).is_err());
        assert!(!allowed_cpus().unwrap().is_empty());
    }

    #[test]
    fn fields_of_proc_are_found_by_name() {
        let found = ["Pss:", "Pss_Dirty:", "Rss:"]
            .map(|name| field("Pss:  12 kB\nPss_Dirty: 7 kB\n", name).to_string());
        assert_eq!(found, ["12", "7", "0"]);
        let machine = describe();
        assert!(machine["cpus"].as_u64().unwrap() > 0 && machine["load"].is_array());
    }
}
