use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const ASKED: UnixMillis = UnixMillis(1_795_452_100_000);
const RECORDED: &[u8] = include_bytes!("../../tests/fixtures/metrics-resource.prom");

fn decode_text(text: &str) -> Batch<'_> {
    decode(text.as_bytes(), ASKED).unwrap()
}

#[test]
fn a_recorded_answer_of_a_real_kubelet_is_read_whole() {
    let batch = decode(RECORDED, ASKED).unwrap();
    assert_eq!(batch.skipped, Skipped::default());
    assert!(batch.complete);
    let time = UnixMillis(1_795_452_102_716);
    let node = Parts {
        cpu: Some((time, 1_385_615_761_514)),
        memory: Some((time, 1_022_742_528)),
        start: None,
        swap: Some((time, 0)),
    };
    assert_eq!(batch.node, node);
    let names: Vec<_> = batch
        .containers
        .iter()
        .map(|container| &*container.name)
        .collect();
    assert_eq!(
        names,
        [
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "metrics-server"
        ]
    );
    let etcd = Container {
        namespace: "kube-system".into(),
        pod: "etcd-node-a".into(),
        name: "etcd".into(),
        parts: Parts {
            cpu: Some((UnixMillis(1_795_452_103_618), 6_221_370_142)),
            memory: Some((UnixMillis(1_795_452_103_618), 31_289_344)),
            start: Some(UnixMillis(1_795_451_872_926)),
            swap: Some((UnixMillis(1_795_452_103_621), 0)),
        },
    };
    assert_eq!(batch.containers.first(), Some(&etcd));
}

#[test]
fn names_without_escapes_are_borrowed() {
    let batch = decode(RECORDED, ASKED).unwrap();
    assert!(
        batch
            .containers
            .iter()
            .all(|c| matches!(c.name, Cow::Borrowed(_)) && matches!(c.pod, Cow::Borrowed(_)))
    );
}

#[test]
fn a_bad_line_costs_its_own_value_only() {
    const CPU: &str = "container_cpu_usage_seconds_total";
    const C: &str = "{container=\"c\",namespace=\"n\",pod=\"p\"}";
    let good = format!("container_memory_working_set_bytes{C} 7 1000\n");
    // The line, whether it is malformed or has a bad value, and whether it can be told which container it is about.
    let cases = [
        (
            format!("{CPU}{{container=\"c\",namespace=\"n\"}} 1 1000"),
            (1, 0),
            false,
        ),
        (format!("{CPU} 1 1000"), (1, 0), false),
        (
            format!("{CPU}{{container=\"\",namespace=\"n\",pod=\"p\"}} 1 1000"),
            (1, 0),
            false,
        ),
        (
            format!(
                "{CPU}{{container=\"{}\",namespace=\"n\",pod=\"p\"}} 1 1000",
                "c".repeat(254)
            ),
            (1, 0),
            false,
        ),
        (
            format!("{CPU}{{container=\"c\",namespace=\"n\",pod=\"p 1"),
            (1, 0),
            false,
        ),
        (format!("{CPU}{C} x"), (1, 0), true),
        (format!("{CPU}{C} 1 1.5"), (1, 0), true),
        (format!("{CPU}{C} 1 1 1"), (1, 0), true),
        (format!("{CPU}{C}"), (1, 0), true),
        (format!("{CPU}{C} NaN"), (0, 1), true),
        (format!("{CPU}{C} +Inf 1"), (0, 1), true),
        (format!("{CPU}{C} -1 1"), (0, 1), true),
        (format!("{CPU}{C} 1e300 1"), (0, 1), true),
        (format!("{CPU}{C} 1 -5"), (0, 1), true),
    ];
    for (bad, (malformed, bad_value), complete) in cases {
        for text in [
            format!("{bad}\n{good}"),
            format!("{good}{bad}\n"),
            format!("{good}{bad}"),
        ] {
            let batch = decode_text(&text);
            let skipped = (
                batch.skipped.malformed,
                batch.skipped.bad_value,
                batch.skipped.duplicate,
            );
            assert_eq!(
                (skipped, batch.complete),
                ((malformed, bad_value, 0), complete),
                "{text}"
            );
            let parts = Parts {
                memory: Some((UnixMillis(1000), 7)),
                ..Parts::default()
            };
            assert_eq!(
                batch.containers.iter().map(|c| c.parts).collect::<Vec<_>>(),
                [parts],
                "{text}"
            );
        }
    }
}

#[test]
fn a_container_whose_values_cannot_be_used_still_runs() {
    let text = "node_memory_working_set_bytes 1\ncontainer_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} NaN\n";
    let batch = decode_text(text);
    assert!(batch.complete);
    assert_eq!(
        batch
            .containers
            .iter()
            .map(|c| (&*c.name, c.parts))
            .collect::<Vec<_>>(),
        [("c", Parts::default())]
    );
}

#[test]
fn zero_is_a_value_and_a_missing_time_is_that_of_the_request() {
    let batch = decode_text("node_cpu_usage_seconds_total 0\nnode_memory_working_set_bytes -0 5\n");
    assert_eq!(batch.node.cpu, Some((ASKED, 0)));
    assert_eq!(batch.node.memory, Some((UnixMillis(5), 0)));
}

#[test]
fn of_a_series_that_comes_twice_the_later_reading_stays() {
    let line = |value, time| {
        format!(
            "container_cpu_usage_seconds_total{{container=\"c\",namespace=\"n\",pod=\"p\"}} {value} {time}\n"
        )
    };
    for text in [line(1, 1000) + &line(2, 2000), line(2, 2000) + &line(1, 1000)] {
        let batch = decode_text(&text);
        assert_eq!(
            batch.containers[0].parts.cpu,
            Some((UnixMillis(2000), 2_000_000_000))
        );
        assert_eq!((batch.containers.len(), batch.skipped.duplicate), (1, 1));
    }
}

#[test]
fn labels_may_stand_in_any_order_with_spaces_and_escapes() {
    let text = "container_start_time_seconds{ pod = \"p\\\"\\\\\\n\" , other=\"}\",container=\"c\",namespace=\"n\", } 1.5\t\n";
    let batch = decode_text(text);
    assert_eq!(batch.containers[0].pod, "p\"\\\n");
    assert_eq!(batch.containers[0].parts.start, Some(UnixMillis(1500)));
}

#[test]
fn an_answer_is_incomplete_when_kubelet_says_so() {
    for name in ["scrape_error", "resource_scrape_error"] {
        let (failed, well) = (format!("{name} 1\n"), format!("{name} 0\n"));
        let (failed, well) = (decode_text(&failed), decode_text(&well));
        assert_eq!((failed.complete, failed.kubelet_error), (false, true));
        assert_eq!((well.complete, well.kubelet_error), (true, false));
    }
}

/// The lines of one family for containers of these numbers.
fn family(name: &str, containers: impl Iterator<Item = usize>) -> String {
    let line = |i| format!("{name}{{container=\"c{i:05}\",namespace=\"n\",pod=\"p\"}} 1 1000\n");
    containers.map(line).collect()
}

#[test]
fn more_containers_than_any_node_runs_are_refused() {
    for (count, expected) in [
        (MAX_CONTAINERS, Ok(MAX_CONTAINERS)),
        (MAX_CONTAINERS + 1, Err(DecodeError::TooManyContainers)),
        (20 * MAX_CONTAINERS, Err(DecodeError::TooManyContainers)),
    ] {
        // The second family in the opposite order, so that nothing is where it is expected.
        let text = family("container_cpu_usage_seconds_total", 0..count)
            + &family("container_memory_working_set_bytes", (0..count).rev());
        let read = decode(text.as_bytes(), ASKED).map(|batch| batch.containers.len());
        assert_eq!(read, expected, "{count}");
    }
}

#[test]
fn lines_missing_from_a_family_do_not_put_it_out_of_step() {
    let text = family("container_cpu_usage_seconds_total", 0..100)
        + &family(
            "container_memory_working_set_bytes",
            (0..100).filter(|i| i % 4 == 0),
        );
    let mut containers = Vec::new();
    let mut place = Place::default();
    for line in lines(text.as_bytes()) {
        let (family, rest) = Family::of(line).unwrap();
        let (labels, _) = Labels::parse(rest).unwrap();
        place
            .of(container_of(labels).unwrap(), family, &mut containers)
            .unwrap();
    }
    assert_eq!(containers.len(), 100, "no second entry for what is there already");
}

#[test]
fn swap_is_read_where_it_is_reported() {
    let batch = decode_text(
        "node_swap_usage_bytes 5 1000\ncontainer_swap_usage_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 6 1000\n\
         container_swap_limit_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 7 1000\n",
    );
    let read = Some((UnixMillis(1000), 5));
    assert_eq!(batch.node.swap, read);
    assert_eq!(batch.containers[0].parts.swap, Some((UnixMillis(1000), 6)));
}

#[test]
fn what_is_no_exposition_of_ours_is_refused() {
    let answers: [&[u8]; 7] = [
        b"",
        b"\n\n# HELP x y\n",
        b"<!DOCTYPE html><html><body>not here</body></html>",
        b"{\"kind\":\"Status\",\"code\":403}",
        b"\x1f\x8b\x08\x00\xff\xfe\x00",
        b"node_load1 0.5\ncontainer_cpu_usage_seconds_total_extra 1\n",
        b"container_cpu_usage_seconds_total{",
    ];
    for answer in answers {
        assert_eq!(
            decode(answer, ASKED),
            Err(DecodeError::Malformed),
            "{}",
            String::from_utf8_lossy(answer)
        );
    }
}

/// A name with everything in it that has to be escaped.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z0-9-]{1,8}", 1 => "[a\"\\\\\n{},= é]{1,6}"]
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode(&bytes, ASKED);
    }

    #[test]
    fn any_damage_to_a_real_answer_is_read_without_a_panic(at in 0..RECORDED.len(), damage: [u8; 3], cut in 0..RECORDED.len()) {
        let mut bytes = RECORDED.to_vec();
        bytes.splice(at..(at + 2).min(RECORDED.len()), damage);
        bytes.truncate(bytes.len().max(cut));
        let _ = decode(&bytes, ASKED);
        let _ = decode(bytes.get(..cut).unwrap_or_default(), ASKED);
    }

    #[test]
    fn every_sample_of_a_valid_exposition_is_kept(
        containers in proptest::collection::btree_map((name(), name(), name()), (0_u32.., 0_u32.., 1_i64..2_000_000_000_000), 0..12),
        timed: bool,
    ) {
        let mut text = String::from("# HELP of something\n\nresource_scrape_error 0\npod_cpu_usage_seconds_total{pod=\"p\"} 1\n");
        let time = |millis: i64| if timed { format!(" {millis}") } else { String::new() };
        for ((namespace, pod, name), (cpu, _, millis)) in &containers {
            writeln!(text,
                "container_cpu_usage_seconds_total{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}} {cpu}{}",
                escape(name), escape(namespace), escape(pod), time(*millis),
).unwrap();
        }
        for ((namespace, pod, name), (_, memory, millis)) in containers.iter().rev() {
            writeln!(text,
                "container_memory_working_set_bytes{{pod=\"{}\",namespace=\"{}\",container=\"{}\"}} {memory}{}",
                escape(pod), escape(namespace), escape(name), time(*millis),
).unwrap();
        }
        let batch = decode(text.as_bytes(), ASKED).unwrap();
        prop_assert_eq!(batch.skipped, Skipped::default());
        let read: Vec<_> = batch
            .containers
            .iter()
            .map(|c| ((c.namespace.to_string(), c.pod.to_string(), c.name.to_string()), c.parts))
            .collect();
        let written: Vec<_> = containers
            .into_iter()
            .map(|(key, (cpu, memory, millis))| {
                let time = if timed { UnixMillis(millis) } else { ASKED };
                let cpu = Some((time, u64::from(cpu) * 1_000_000_000));
                (key, Parts { cpu, memory: Some((time, u64::from(memory))), start: None, swap: None })
            })
            .collect();
        prop_assert_eq!(read, written);
    }
}
