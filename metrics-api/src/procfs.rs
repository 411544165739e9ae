//! What the process takes up, by the names that Prometheus' client libraries use. Read from `/proc` when somebody asks;
//! where there is none, there are no such metrics.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Ticks of a second in `/proc`: `sysconf(_SC_CLK_TCK)`, which is 100 on every Linux there is (it is part of its ABI).
const TICKS: f64 = 100.0;

/// Reads `/proc/self`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Usage {
    /// User and system time in seconds.
    cpu: Option<f64>,
    /// Since the machine was started, in seconds.
    started: Option<f64>,
    resident: Option<u64>,
    virtual_size: Option<u64>,
}

impl Usage {
    /// Reads `stat` and `status` of proc(5).
    fn parse(stat: &str, status: &str) -> Self {
        // The second field is the program's name in parentheses, which may hold anything.
        let fields: Vec<_> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_ascii_whitespace().collect())
            .unwrap_or_default();
        // Counted from the third field on: 14 and 15 are times, 22 is the start.
        let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kibibytes.checked_mul(1024)
        };
        Self {
            cpu: ticks(14)
                .zip(ticks(15))
                .map(|(user, system)| (user + system) / TICKS),
            started: ticks(22).map(|start| start / TICKS),
            resident: bytes("VmRSS:"),
            virtual_size: bytes("VmSize:"),
        }
    }
}

/// When the machine was started, in Unix seconds.
fn boot_time(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// The soft limit of open files.
fn most_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let usage = Usage::parse(&read("/proc/self/stat"), &read("/proc/self/status"));
        let started = usage
            .started
            .zip(boot_time(&read("/proc/stat")))
            .map(|(after, boot)| boot + after);
        let files = fs::read_dir("/proc/self/fd")
            .ok()
            .map(|files| files.count() as u64);
        let seconds = Some(&Unit::Seconds);
        if let Some(cpu) = usage.cpu {
            let about = "User and system CPU time";
            let family = encoder.encode_descriptor("process_cpu", about, seconds, MetricType::Counter)?;
            ConstCounter::new(cpu).encode(family)?;
        }
        if let Some(started) = started {
            let about = "When the process was started, in Unix seconds";
            let family =
                encoder.encode_descriptor("process_start_time", about, seconds, MetricType::Gauge)?;
            ConstGauge::new(started).encode(family)?;
        }
        for (name, about, value) in [
            ("process_resident_memory_bytes", "Memory in use", usage.resident),
            (
                "process_virtual_memory_bytes",
                "Address space in use",
                usage.virtual_size,
            ),
            ("process_open_fds", "Open files", files),
            (
                "process_max_fds",
                "Most open files",
                most_files(&read("/proc/self/limits")),
            ),
        ] {
            if let Some(value) = value {
                let family = encoder.encode_descriptor(name, about, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(family)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn proc_is_read_as_its_manual_says() {
        let stat =
            "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 1234 66 0 0 20 0 9 0 500 1000 200 18446744073709551615";
        let status = "Name:\ta\nVmSize:\t    1000 kB\nVmRSS:\t     20 kB\n";
        let expected = Usage {
            cpu: Some(13.0),
            started: Some(5.0),
            resident: Some(20 * 1024),
            virtual_size: Some(1000 * 1024),
        };
        assert_eq!(Usage::parse(stat, status), expected);
        assert_eq!(Usage::parse("", "VmRSS: much\n"), Usage::default());
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024   4096   files\n";
        assert_eq!(most_files(limits), Some(1024));
        assert_eq!(most_files("Max open files unlimited unlimited files"), None);
    }

    #[test]
    fn the_page_has_the_names_that_dashboards_know() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        for name in [
            "process_cpu_seconds_total ",
            "process_start_time_seconds ",
            "process_resident_memory_bytes ",
            "process_virtual_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
        ] {
            let value = page.lines().find_map(|line| line.strip_prefix(name));
            assert!(
                value.is_some_and(|value| value.parse::<f64>().unwrap() > 0.0),
                "{name}\n{page}"
            );
        }
    }
}
