use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules { resolution: 15_000 };
/// Some moment of the node's clock, in milliseconds.
const T: i64 = 1_795_452_000_000;
/// Some moment of our clock, in milliseconds.
const AT: u64 = 86_400_000;
const SECOND: u64 = 1_000_000_000;

/// A reading `seconds` after [`T`], with `cpu` seconds of CPU time.
fn reading(seconds: i64, cpu: u64) -> Reading {
    Reading {
        time: UnixMillis(T + seconds * 1000),
        cpu: cpu * SECOND,
        memory: Some(4096),
        start: None,
        swap: None,
    }
}

/// A reading of a container that started `start` seconds after [`T`].
fn started(seconds: i64, cpu: u64, start: i64) -> Reading {
    Reading {
        start: Some(UnixMillis(T + start * 1000)),
        ..reading(seconds, cpu)
    }
}

fn at(seconds: u64) -> Monotonic {
    Monotonic(AT + seconds * 1000)
}

/// A series that took in these readings, each at the time it was made.
fn series(readings: &[Reading]) -> Series {
    let mut series = Series::default();
    for reading in readings {
        series.observe(
            reading,
            at(u64::try_from((reading.time.0 - T) / 1000).unwrap()),
            Clock::default(),
            RULES,
        );
    }
    series
}

/// Time in seconds after [`T`], window in seconds and CPU in millicores of the usage.
fn usage(series: &Series) -> Option<(i64, u64, u64)> {
    series
        .usage()
        .map(|u| ((u.time.0 - T) / 1000, u.window / 1000, u.cpu / 1_000_000))
}

#[test]
fn a_rate_is_that_between_the_two_newest_samples() {
    assert_eq!(usage(&series(&[reading(0, 10)])), None);
    assert_eq!(
        usage(&series(&[reading(0, 10), reading(15, 13)])),
        Some((15, 15, 200))
    );
    assert_eq!(
        usage(&series(&[reading(0, 10), reading(15, 13), reading(20, 13)])),
        Some((20, 5, 0))
    );
}

#[test]
fn nanocores_are_rounded_down_and_windows_kept_to_the_millisecond() {
    let mut series = Series::default();
    series.observe(
        &Reading {
            time: UnixMillis(T),
            cpu: 1,
            memory: Some(1),
            start: None,
            swap: None,
        },
        at(0),
        Clock::default(),
        RULES,
    );
    series.observe(
        &Reading {
            time: UnixMillis(T + 15_001),
            cpu: 344_431_000,
            memory: Some(2),
            start: None,
            swap: None,
        },
        at(15),
        Clock::default(),
        RULES,
    );
    let usage = series.usage().unwrap();
    // 344430999 ns in 15.001 s = 22960535.90...
    assert_eq!(
        (usage.cpu, usage.window, usage.memory, usage.time),
        (22_960_535, 15_001, 2, UnixMillis(T + 15_001))
    );
}

#[test]
fn a_first_usage_waits_for_a_window_of_nine_seconds() {
    assert_eq!(usage(&series(&[reading(0, 10), reading(8, 13)])), None);
    assert_eq!(
        usage(&series(&[reading(0, 10), reading(8, 13), reading(9, 19)])),
        Some((9, 9, 1000))
    );
}

#[test]
fn a_young_containers_start_is_the_zero_point() {
    assert_eq!(usage(&series(&[started(12, 3, 0)])), Some((12, 12, 250)));
    for too_young_or_old in [8, 15, 1000] {
        assert_eq!(usage(&series(&[started(too_young_or_old, 3, 0)])), None);
    }
    // Seen at 2 s, then at 10 s: too short between the two, long enough from the start.
    assert_eq!(
        usage(&series(&[started(2, 1, 0), started(10, 5, 0)])),
        Some((10, 10, 500))
    );
}

#[test]
fn a_repeated_sample_changes_nothing() {
    let mut series = series(&[reading(0, 10), reading(15, 13)]);
    series.observe(&reading(15, 13), at(30), Clock::default(), RULES);
    assert_eq!(usage(&series), Some((15, 15, 200)));
    assert_eq!(series.usage().unwrap().received, at(15));
}

#[test]
fn a_usage_is_answered_until_it_is_three_resolutions_old() {
    let series = series(&[reading(0, 10), reading(15, 13)]);
    assert!(series.usage().unwrap().is_fresh(at(60), RULES));
    assert!(!series.usage().unwrap().is_fresh(at(61), RULES));
}

#[test]
fn what_is_no_later_sample_of_the_same_counter_starts_anew_and_keeps_the_last_usage() {
    let before = [started(0, 10, -100), started(15, 13, -100)];
    let breaks = [
        ("the counter fell", started(30, 2, -100)),
        ("the container restarted", started(30, 50, 25)),
        ("another container of the same name", started(30, 50, -90)),
        ("the node's clock went back", started(10, 14, -100)),
        ("the node's clock jumped", started(1000, 14, -100)),
        (
            "more CPU than any machine has",
            started(30, u64::MAX / SECOND, -100),
        ),
    ];
    for (what, reading) in breaks {
        let mut series = series(&before);
        series.observe(&reading, at(30), Clock::default(), RULES);
        assert_eq!(usage(&series), Some((15, 15, 200)), "{what}");
        let next = Reading {
            time: UnixMillis(reading.time.0 + 15_000),
            cpu: reading.cpu,
            ..reading
        };
        series.observe(&next, at(45), Clock::default(), RULES);
        assert_eq!(usage(&series), Some(((next.time.0 - T) / 1000, 15, 0)), "{what}");
    }
}

#[test]
fn after_a_gap_the_window_spans_it() {
    let mut series = series(&[reading(0, 10), reading(15, 13)]);
    series.observe(&reading(915, 103), at(915), Clock::default(), RULES);
    assert_eq!(usage(&series), Some((915, 900, 100)));
}

#[test]
fn a_reading_needs_cpu_time() {
    let value = Some((UnixMillis(T), 5));
    let cpu_only = Parts {
        cpu: value,
        ..Parts::default()
    };
    assert_eq!(Reading::of(cpu_only).unwrap().memory, None);
    let memory_only = Parts {
        memory: value,
        ..Parts::default()
    };
    assert_eq!(Reading::of(memory_only), None);
}

#[test]
fn memory_that_is_missing_is_what_it_was_while_that_is_young() {
    let without = |seconds, cpu| Reading {
        memory: None,
        ..reading(seconds, cpu)
    };
    let mut series = series(&[reading(0, 10), reading(15, 13)]);
    for seconds in [30, 45, 60] {
        series.observe(
            &without(seconds, 13),
            at(seconds.cast_unsigned()),
            Clock::default(),
            RULES,
        );
        assert_eq!(usage(&series), Some((seconds, 15, 0)), "CPU goes on");
        assert_eq!(series.usage().unwrap().memory, 4096);
    }
    series.observe(&without(75, 13), at(75), Clock::default(), RULES);
    assert_eq!(usage(&series), Some((60, 15, 0)), "too old to go by");
    series.observe(&reading(90, 16), at(90), Clock::default(), RULES);
    assert_eq!(
        usage(&series),
        Some((90, 15, 200)),
        "measured from the last CPU time"
    );
}

#[test]
fn a_usage_lasts_for_three_of_its_windows_but_five_minutes_at_most() {
    let slow = series(&[reading(0, 10), reading(60, 13)]);
    assert!(slow.usage().unwrap().is_fresh(at(240), RULES));
    assert!(!slow.usage().unwrap().is_fresh(at(241), RULES));
    let slower = series(&[reading(0, 10), reading(900, 13)]);
    assert!(slower.usage().unwrap().is_fresh(at(1200), RULES));
    assert!(!slower.usage().unwrap().is_fresh(at(1201), RULES));
}

#[test]
fn a_sample_that_is_repeated_for_long_is_no_clock_that_was_set() {
    let mut series = series(&[reading(0, 10), reading(15, 13)]);
    for seconds in [30, 60, 90, 120] {
        series.observe(&reading(15, 13), at(seconds), Clock::default(), RULES);
    }
    series.observe(&reading(115, 23), at(125), Clock::default(), RULES);
    assert_eq!(usage(&series), Some((115, 100, 100)));
}

#[test]
fn a_start_is_no_zero_point_once_something_was_set() {
    // The counter fell, or the clock went back, with the same start: its age says nothing.
    for broken in [started(12, 1, 0), started(11, 5, 0)] {
        let mut series = series(&[started(13, 4, 0)]);
        assert_eq!(usage(&series), Some((13, 13, 307)));
        series.observe(&broken, at(28), Clock::default(), RULES);
        assert_eq!(usage(&series), Some((13, 13, 307)), "{broken:?}");
    }
    let mut series = Series::default();
    let clock = Clock {
        ages: Some(UnixMillis(T + 5_000)),
        ..Clock::default()
    };
    series.observe(&started(12, 3, 0), at(12), clock, RULES);
    assert_eq!(usage(&series), None, "it started by the time before");
    series.observe(&started(22, 6, 10), at(22), clock, RULES);
    assert_eq!(usage(&series), Some((22, 12, 500)), "another start");
}

/// One reading of a history: milliseconds since the one before on our clock, how far the node's clock is off, CPU
/// time and start.
fn history() -> impl Strategy<Value = Vec<(u64, i64, u64, Option<i64>)>> {
    let offset = prop_oneof![6 => Just(0), 2 => -40_000_i64..40_000, 1 => any::<i32>().prop_map(i64::from)];
    let cpu = prop_oneof![8 => 0..60 * SECOND, 1 => any::<u64>()];
    let start = proptest::option::of(prop_oneof![3 => -30_000_i64..300_000, 1 => any::<i64>()]);
    proptest::collection::vec((0_u64..40_000, offset, cpu, start), 1..30)
}

proptest! {
    #[test]
    fn no_history_gives_an_absurd_usage(history in history(), cumulative: bool, resolution in 1_u64..120_000) {
        let rules = Rules { resolution };
        let mut series = Series::default();
        let (mut now, mut counter) = (AT, 0_u64);
        let mut readings: Vec<Reading> = Vec::new();
        for (step, offset, cpu, start) in history {
            now += step;
            counter = if cumulative { counter.saturating_add(cpu) } else { cpu };
            let time = UnixMillis(T + i64::try_from(now - AT).unwrap() + offset);
            let start = start.map(|start| UnixMillis(T.saturating_add(start)));
            let reading = Reading { time, cpu: counter, memory: Some(now), start, swap: None };
            let before = series.usage().copied();
            series.observe(&reading, Monotonic(now), Clock::default(), rules);
            readings.push(reading);
            let Some(usage) = series.usage().copied() else { continue };
            prop_assert!(usage.cpu <= MOST_CORES * SECOND);
            prop_assert!(usage.window >= SHORTEST_WINDOW);
            if before == Some(usage) {
                continue;
            }
            prop_assert!(before.is_some() || usage.window >= FIRST_WINDOW);
            prop_assert_eq!((usage.time, Some(usage.memory), usage.received), (reading.time, reading.memory, Monotonic(now)));
            // It is the rate from an earlier sample at `timestamp - window`, or from the container's start.
            let from = UnixMillis(usage.time.0 - i64::try_from(usage.window).unwrap());
            let at_start = (Some(from) == reading.start).then_some(0);
            let earlier = readings.iter().filter(|earlier| earlier.time == from).map(|earlier| earlier.cpu);
            let rates: Vec<_> =
                earlier.chain(at_start).filter_map(|cpu| Some(rate(reading.cpu.checked_sub(cpu)?, usage.window))).collect();
            prop_assert!(rates.contains(&usage.cpu), "{:?} is none of {:?}", usage, rates);
        }
    }
}
