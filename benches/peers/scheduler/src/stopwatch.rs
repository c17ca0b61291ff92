//! The clock for work that never waits.

use rustix::time::{ClockId, clock_gettime};

/// Measures the processor time that this process uses.
pub(crate) struct Stopwatch {
    start_ns: f64,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            start_ns: processor_ns(),
        }
    }

    /// Nanoseconds since the start for each of so many operations.
    pub(crate) fn per_operation(&self, operations: u64) -> f64 {
        (processor_ns() - self.start_ns) / operations as f64
    }
}

fn processor_ns() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 * 1e9 + used.tv_nsec as f64
}
