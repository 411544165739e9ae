//! The two kinds of time here. Samples carry the kubelet's wall clock; how old something is, is measured on our
//! own clock that never steps. Both are plain numbers that callers pass in.

use std::fmt;

use jiff::Timestamp;

/// Milliseconds since the Unix epoch, as kubelets write them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// This instant as a timestamp; the end of jiff's range (the year 9999) for what lies beyond it.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        let end = if self.0 < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        };
        Timestamp::from_millisecond(self.0).unwrap_or(end)
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-23T16:41:42.716Z`.
impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.timestamp())
    }
}

impl From<Timestamp> for UnixMillis {
    fn from(at: Timestamp) -> Self {
        Self(at.as_millisecond())
    }
}

/// Milliseconds on a clock of this process that never steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// Milliseconds from `earlier` to this; 0 if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Where [`Monotonic`] values come from: tokio's clock, which tests can pause.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock(tokio::time::Instant);

impl MonotonicClock {
    /// A clock that starts now, at one day: what is "never" and what is "at the start" stay apart.
    #[must_use]
    pub fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    /// Now.
    #[must_use]
    pub fn now(self) -> Monotonic {
        let elapsed = u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX);
        Monotonic(elapsed.saturating_add(86_400_000))
    }
}

/// Prints a duration as Go's `time.Duration` does: `15.001s`, `1m0s`, `2h0m0.5s`, `500ms`, `0s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDuration {
    /// Milliseconds: what all our durations are made of.
    pub millis: u64,
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.millis / 1000, self.millis % 1000);
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        if self.millis == 0 {
            return f.write_str("0s");
        }
        if self.millis < 1000 {
            return write!(f, "{millis}ms");
        }
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{seconds}")?;
        if millis > 0 {
            let (mut digits, mut width) = (millis, 3);
            while digits % 10 == 0 {
                digits /= 10;
                width -= 1;
            }
            write!(f, ".{digits:0width$}")?;
        }
        f.write_str("s")
    }
}

/// Reads a duration as Go's `time.ParseDuration` does, down to milliseconds: `15s`, `1m0s`, `1.5h`, `500ms`.
pub fn parse_go_duration(text: &str) -> Result<std::time::Duration, String> {
    let refused = || format!("expected a duration such as 15s, 1m30s or 500ms, found \"{text}\"");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(refused());
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let unit_at = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(refused)?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(refused()),
        };
        let number: f64 = number.parse().map_err(|_| refused())?;
        seconds += number * scale;
        rest = tail;
    }
    std::time::Duration::try_from_secs_f64(seconds).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_print_as_in_go() {
        let cases = [
            (0, "0s"),
            (1, "1ms"),
            (999, "999ms"),
            (1000, "1s"),
            (15_001, "15.001s"),
            (20_040, "20.04s"),
            (15_500, "15.5s"),
            (60_000, "1m0s"),
            (3_600_000, "1h0m0s"),
            (90_061_010, "25h1m1.01s"),
        ];
        for (millis, printed) in cases {
            assert_eq!(GoDuration { millis }.to_string(), printed);
        }
    }

    #[test]
    fn durations_read_as_in_go() {
        for (text, millis) in [
            ("15s", 15_000),
            ("1m0s", 60_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("0", 0),
        ] {
            assert_eq!(
                parse_go_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in ["", "15", "s", "15 s", "-1s", "1d", "1.2.3s", "."] {
            assert!(parse_go_duration(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_reads_back(millis in 0_u64..1_000_000_000) {
            let read = parse_go_duration(&GoDuration { millis }.to_string()).unwrap();
            proptest::prop_assert_eq!(read.as_millis().abs_diff(u128::from(millis)), 0);
        }
    }
}
