//! The rules by which two samples become a usage. Pure: what time it is, is in the arguments.

use crate::{
    decode::Parts,
    time::{Monotonic, UnixMillis},
};

/// Shortest window of a first usage. What a program does at its start distorts a shorter one.
pub const FIRST_WINDOW: u64 = 9_000;
/// Samples closer together than this count as one. Kubelet gives times in whole milliseconds, so that a window of a
/// few of them says little.
pub const SHORTEST_WINDOW: u64 = 1_000;
/// How far a window may differ from the time between the two answers, both in milliseconds, before it is taken for
/// a step of the node's clock. A sample can be that old when it is answered: cAdvisor looks at a container every 10
/// to 30 s, seldom later.
const CLOCK_STEP: u64 = 60_000;
/// No rate is above this many cores: Linux is built for at most 8192 processors.
const MOST_CORES: u64 = 8192;

/// Settings of the rules.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Time between two scrapes of a node, in milliseconds.
    pub resolution: u64,
}

impl Rules {
    /// For how long a usage is answered, in milliseconds.
    #[must_use]
    pub fn keep(self) -> u64 {
        self.resolution.saturating_mul(3)
    }
}

/// A counter and a gauge, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When the CPU time was read.
    pub time: UnixMillis,
    /// CPU time used since the start, in nanoseconds.
    pub cpu: u64,
    /// Working set in bytes.
    pub memory: u64,
    /// When it started, if that is known.
    pub start: Option<UnixMillis>,
}

impl Reading {
    /// A reading needs CPU and memory of one scrape: a usage is one statement about one moment. Its time is that
    /// of the CPU sample, because a rate is wrong with any other, while the gauge is right within its scrape.
    #[must_use]
    pub fn of(parts: Parts) -> Option<Self> {
        let ((time, cpu), (_, memory)) = (parts.cpu?, parts.memory?);
        Some(Self {
            time,
            cpu,
            memory,
            start: parts.start,
        })
    }
}

/// What the API answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// End of the window: time of the newer sample.
    pub time: UnixMillis,
    /// Length of the window in milliseconds, never 0.
    pub window: u64,
    /// CPU in nanocores, the average over the window.
    pub cpu: u64,
    /// Working set in bytes at `time`.
    pub memory: u64,
    /// When the newer sample arrived. Age is measured from here, since clocks of nodes differ from ours.
    pub received: Monotonic,
}

impl Usage {
    /// Whether it is recent enough to be answered.
    #[must_use]
    pub fn is_fresh(&self, now: Monotonic, rules: Rules) -> bool {
        now.since(self.received) <= rules.keep()
    }
}

/// The older end of the next window.
#[derive(Clone, Copy, Debug)]
struct Baseline {
    time: UnixMillis,
    cpu: u64,
    start: Option<UnixMillis>,
    received: Monotonic,
}

/// What is kept of one container or node: the last usage and the sample that the next one is measured from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Series {
    baseline: Option<Baseline>,
    usage: Option<Usage>,
}

impl Series {
    /// The last usage, however old.
    #[must_use]
    pub fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    /// When the container last started, if that is known.
    #[must_use]
    pub fn start(&self) -> Option<UnixMillis> {
        self.baseline.and_then(|baseline| baseline.start)
    }

    /// Takes in a reading that arrived at `at`.
    pub fn observe(&mut self, reading: &Reading, at: Monotonic, rules: Rules) {
        let Some(baseline) = self.baseline.filter(|baseline| baseline.leads_to(reading, at)) else {
            // First sight, a restart, a counter or clock that was set: the window starts anew. The last usage
            // stays for as long as any other that is not renewed.
            self.measure_from_start(reading, at, rules);
            self.baseline = Some(Baseline::new(reading, at));
            return;
        };
        let window = baseline.window(reading);
        if window < SHORTEST_WINDOW {
            // The kubelet repeats itself: its statistics are renewed less often than it is asked.
            return;
        }
        let first = self.usage.is_none_or(|usage| usage.time != baseline.time);
        if !first || window >= FIRST_WINDOW {
            let cpu = rate(reading.cpu - baseline.cpu, window);
            self.usage = Some(Usage {
                time: reading.time,
                window,
                cpu,
                memory: reading.memory,
                received: at,
            });
            self.baseline = Some(Baseline::new(reading, at));
        } else if self.measure_from_start(reading, at, rules) {
            self.baseline = Some(Baseline::new(reading, at));
        }
    }

    /// A young container's counter was 0 when it started, which makes a usage of its first sample. An older one
    /// would show the average of its life: for that it is better to wait for a second sample.
    fn measure_from_start(&mut self, reading: &Reading, at: Monotonic, rules: Rules) -> bool {
        let age = reading
            .start
            .and_then(|start| u64::try_from(reading.time.0.checked_sub(start.0)?).ok());
        let Some(window) = age.filter(|age| (FIRST_WINDOW..rules.resolution).contains(age)) else {
            return false;
        };
        let cpu = rate(reading.cpu, window);
        if cpu > MOST_CORES * 1_000_000_000 {
            return false;
        }
        self.usage = Some(Usage {
            time: reading.time,
            window,
            cpu,
            memory: reading.memory,
            received: at,
        });
        true
    }
}

impl Baseline {
    fn new(reading: &Reading, at: Monotonic) -> Self {
        Self {
            time: reading.time,
            cpu: reading.cpu,
            start: reading.start,
            received: at,
        }
    }

    /// Milliseconds from this to `reading`.
    fn window(&self, reading: &Reading) -> u64 {
        u64::try_from(reading.time.0.saturating_sub(self.time.0)).unwrap_or(0)
    }

    /// Whether `reading` is of the same counter, later, on the same clock.
    fn leads_to(&self, reading: &Reading, at: Monotonic) -> bool {
        let window = self.window(reading);
        let restarted = reading.start.is_some_and(|start| start > self.time)
            || matches!((self.start, reading.start), (Some(a), Some(b)) if a.0.abs_diff(b.0) > SHORTEST_WINDOW);
        !restarted
            && reading.time >= self.time
            && reading.cpu >= self.cpu
            && window.abs_diff(at.since(self.received)) <= CLOCK_STEP
            && (window < SHORTEST_WINDOW
                || rate(reading.cpu - self.cpu, window) <= MOST_CORES * 1_000_000_000)
    }
}

/// Nanocores, rounded down as metrics-server does: `cpu` nanoseconds of CPU time in `window` milliseconds.
fn rate(cpu: u64, window: u64) -> u64 {
    let nanocores = u128::from(cpu) * 1000 / u128::from(window.max(1));
    u64::try_from(nanocores).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
