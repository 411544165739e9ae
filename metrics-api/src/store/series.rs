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

/// Longest that a usage outlives three resolutions by, because its samples are that far apart.
const LONGEST_KEEP: u64 = 300_000;

/// Settings of the rules.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Time between two scrapes of a node, in milliseconds.
    pub resolution: u64,
}

impl Rules {
    /// For how long a value is answered that is not renewed, in milliseconds.
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
    /// Working set in bytes, if that is known.
    pub memory: Option<u64>,
    /// When it started, if that is known.
    pub start: Option<UnixMillis>,
    /// Swap used in bytes, if that is known.
    pub swap: Option<u64>,
}

impl Reading {
    /// A reading needs CPU time: the moment it was read is that of the usage, because a rate is wrong with any other,
    /// while a gauge is right within its scrape.
    #[must_use]
    pub fn of(parts: Parts) -> Option<Self> {
        let (time, cpu) = parts.cpu?;
        Some(Self {
            time,
            cpu,
            memory: parts.memory.map(|(_, bytes)| bytes),
            start: parts.start,
            swap: parts.swap.map(|(_, bytes)| bytes),
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
    /// Swap used in bytes, where the kubelet reports it.
    pub swap: Option<u64>,
    /// When the newer sample arrived. Age is measured from here, since clocks of nodes differ from ours.
    pub received: Monotonic,
}

impl Usage {
    /// Whether it is recent enough to be answered: not older than three resolutions, or than three of its windows
    /// where the kubelet renews its samples less often than it is asked.
    #[must_use]
    pub fn is_fresh(&self, now: Monotonic, rules: Rules) -> bool {
        let windows = self.window.saturating_mul(3).min(LONGEST_KEEP);
        now.since(self.received) <= rules.keep().max(windows)
    }
}

/// Which samples can be compared with one another, after the clock of their node was set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// What was read at this time or before may be of the time before the clock was set.
    pub set: Option<UnixMillis>,
    /// No container that started then or before can be told the age of.
    pub ages: Option<UnixMillis>,
    /// The time at the node, while the kubelet may still hold samples of the time before.
    pub now: Option<UnixMillis>,
}

impl Clock {
    /// Whether a sample may be compared with others.
    fn holds(self, time: UnixMillis) -> bool {
        match (self.set, self.now) {
            (Some(set), Some(now)) => set < time && time <= now,
            _ => true,
        }
    }
}

/// The older end of the next window.
#[derive(Clone, Copy, Debug)]
struct Baseline {
    time: UnixMillis,
    cpu: u64,
    start: Option<UnixMillis>,
    received: Monotonic,
    /// Whether the counter was 0 at `start`, as far as is known: it has not fallen since, nor has the clock gone back.
    whole: bool,
}

/// What is kept of one container or node: the last usage and the sample that the next one is measured from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Series {
    baseline: Option<Baseline>,
    usage: Option<Usage>,
    memory: Option<(u64, Monotonic)>,
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

    /// The clock of the node was set: no window may begin before that. The last usage stays.
    pub fn forget_baseline(&mut self) {
        self.baseline = None;
    }

    /// Takes in a reading that arrived at `at`.
    pub fn observe(&mut self, reading: &Reading, at: Monotonic, clock: Clock, rules: Rules) {
        if let Some(memory) = reading.memory {
            self.memory = Some((memory, at));
        }
        if self.baseline.is_some_and(|baseline| baseline.is(reading)) || !clock.holds(reading.time) {
            // The kubelet repeats itself: its statistics are renewed less often than it is asked.
            return;
        }
        let baseline = self.baseline;
        let next = Baseline::new(reading, at, baseline, clock);
        let Some(baseline) = baseline.filter(|baseline| baseline.leads_to(reading, at)) else {
            // First sight, a restart, a counter or clock that was set: the window starts anew. The last usage
            // stays for as long as any other that is not renewed.
            self.measure_from_start(reading, next, at, rules);
            self.baseline = Some(next);
            return;
        };
        let window = baseline.window(reading);
        if window < SHORTEST_WINDOW {
            return;
        }
        let first = self.usage.is_none_or(|usage| usage.time != baseline.time);
        if !first || window >= FIRST_WINDOW {
            self.put(
                reading,
                window,
                rate(reading.cpu - baseline.cpu, window),
                at,
                rules,
            );
            self.baseline = Some(next);
        } else if self.measure_from_start(reading, next, at, rules) {
            self.baseline = Some(next);
        }
    }

    /// A young container's counter was 0 when it started, which makes a usage of its first sample. An older one
    /// would show the average of its life: for that it is better to wait for a second sample.
    fn measure_from_start(&mut self, reading: &Reading, next: Baseline, at: Monotonic, rules: Rules) -> bool {
        let age = reading
            .start
            .and_then(|start| u64::try_from(reading.time.0.checked_sub(start.0)?).ok());
        let Some(window) = age.filter(|age| (FIRST_WINDOW..rules.resolution).contains(age)) else {
            return false;
        };
        let cpu = rate(reading.cpu, window);
        if !next.whole || cpu > MOST_CORES * 1_000_000_000 {
            return false;
        }
        self.put(reading, window, cpu, at, rules);
        true
    }

    /// A usage needs both values. Memory that is missing is what it was last, while that is young enough.
    fn put(&mut self, reading: &Reading, window: u64, cpu: u64, at: Monotonic, rules: Rules) {
        let memory = self
            .memory
            .filter(|(_, received)| at.since(*received) <= rules.keep());
        let Some((memory, _)) = memory else { return };
        self.usage = Some(Usage {
            time: reading.time,
            window,
            cpu,
            memory,
            swap: reading.swap,
            received: at,
        });
    }
}

impl Baseline {
    /// That reading, as it follows `before`.
    fn new(reading: &Reading, at: Monotonic, before: Option<Self>, clock: Clock) -> Self {
        let Reading { time, cpu, start, .. } = *reading;
        let whole = match (start, before) {
            (Some(start), _) if clock.ages.is_some_and(|since| start <= since) => false,
            (Some(_), Some(before)) if !before.restarted(reading) => {
                before.whole && cpu >= before.cpu && time >= before.time
            }
            (start, _) => start.is_some(),
        };
        Self {
            time,
            cpu,
            start,
            received: at,
            whole,
        }
    }

    /// Whether it is that reading, come again.
    fn is(&self, reading: &Reading) -> bool {
        (self.time, self.cpu, self.start) == (reading.time, reading.cpu, reading.start)
    }

    /// Milliseconds from this to `reading`.
    fn window(&self, reading: &Reading) -> u64 {
        u64::try_from(reading.time.0.saturating_sub(self.time.0)).unwrap_or(0)
    }

    /// Whether `reading` is of a later container.
    fn restarted(&self, reading: &Reading) -> bool {
        match (self.start, reading.start) {
            (Some(before), Some(now)) => {
                before.0.abs_diff(now.0) > SHORTEST_WINDOW || (now != before && now > self.time)
            }
            (None, Some(now)) => now > self.time,
            (_, None) => false,
        }
    }

    /// Whether `reading` is of the same counter, later, on the same clock.
    fn leads_to(&self, reading: &Reading, at: Monotonic) -> bool {
        let window = self.window(reading);
        !self.restarted(reading)
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
