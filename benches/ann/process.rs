//! What this process has used of the machine.
//!
//! Owns: its processor time and resident memory, taken as the peers' scripts take theirs. Facts that
//! a system does not tell are `None`. Deliberately absent: other processes.

/// Processor time of all threads so far, those that ended included, in seconds.
pub fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing, and the call does nothing else.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) } != 0;
    if failed { f64::NAN } else { time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9 }
}

/// Resident memory in bytes, after the allocator gave back what it does not need. Threads that
/// allocated should have ended: what they keep for themselves counts.
pub fn resident_bytes() -> Option<u64> {
    unsafe extern "C" {
        fn mi_collect(force: bool);
    }
    // SAFETY: part of mimalloc's public interface, and mimalloc is this program's allocator; it takes
    // no pointer and may be called at any time.
    unsafe { mi_collect(true) };
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    Some(kib.parse::<u64>().ok()? * 1024)
}
