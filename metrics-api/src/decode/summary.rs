//! kubelet's `/stats/summary` (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`), from bytes to the same [`Batch`].
//!
//! It is read as it streams by, borrowing names, and leniently: a value of another type than is expected costs itself
//! and nothing else. Only what is no JSON at all, or ends early, is refused as a whole.
//!
//! Its times are whole seconds, where those of `/metrics/resource` are milliseconds: a window of it may be a second
//! off.

use std::{borrow::Cow, fmt, marker::PhantomData};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{Batch, Container, DecodeError, FAMILIES, MAX_CONTAINERS, Part, Parts, is_name, whole};
use crate::time::UnixMillis;

/// Reads an answer. `asked` is when it was asked for: the time of samples that carry none.
pub fn decode_summary(body: &[u8], asked: UnixMillis) -> Result<Batch<'_>, DecodeError> {
    let summary: Summary<'_> = serde_json::from_slice(body).map_err(|_| DecodeError::Malformed)?;
    if summary.node.is_none() && summary.pods.is_none() {
        return Err(DecodeError::Malformed);
    }
    let mut batch = Batch {
        complete: summary.pods.is_some(),
        ..Batch::default()
    };
    let mut taking = Taking {
        asked,
        batch: &mut batch,
    };
    if let Some(node) = summary.node {
        taking.batch.node = taking.parts(&node, false);
    }
    for pod in summary.pods.into_iter().flat_map(|pods| pods.0) {
        let Reference { name, namespace, .. } = pod.reference.unwrap_or_default();
        for stats in pod.containers.into_iter().flat_map(|containers| containers.0) {
            if taking.batch.containers.len() > MAX_CONTAINERS * FAMILIES {
                return Err(DecodeError::TooManyContainers);
            }
            let parts = taking.parts(&stats, true);
            let named = (name.usable(), namespace.usable(), stats.name.usable());
            if let (Some(pod), Some(namespace), Some(name)) = named {
                taking.batch.containers.push(Container {
                    namespace,
                    pod,
                    name,
                    parts,
                });
            } else {
                taking.batch.skipped.malformed += 1;
                taking.batch.complete = false;
            }
        }
    }
    batch.finish()
}

struct Taking<'a, 'b> {
    asked: UnixMillis,
    batch: &'b mut Batch<'a>,
}

impl Taking<'_, '_> {
    /// What is said about one node or container.
    fn parts(&mut self, stats: &Stats<'_>, with_start: bool) -> Parts {
        let mut parts = Parts::default();
        let cpu = stats.cpu.as_ref().map(|cpu| (&cpu.time, cpu.total));
        let memory = stats
            .memory
            .as_ref()
            .map(|memory| (&memory.time, memory.working_set));
        let swap = stats.swap.as_ref().map(|swap| (&swap.time, swap.used));
        let start = stats.start.read().filter(|_| with_start);
        let read = [
            self.sample(cpu).map(Part::Cpu),
            self.sample(memory).map(Part::Memory),
            self.sample(swap).map(Part::Swap),
            start.map(Part::Start),
        ];
        for part in read.into_iter().flatten() {
            part.put(&mut parts, &mut self.batch.skipped);
        }
        parts
    }

    fn sample(&mut self, said: Option<(&Text<'_>, Number)>) -> Option<(UnixMillis, u64)> {
        let (time, value) = said?;
        let value = match value {
            Number::Missing => return None,
            Number::Bad => {
                self.batch.skipped.bad_value += 1;
                return None;
            }
            Number::Good(value) => value,
        };
        let time = match time {
            Text(None) => {
                self.batch.untimed = true;
                Some(self.asked)
            }
            text => text.read(),
        };
        // A time before 1970 is no time that a counter was read at.
        let time = time.filter(|time| time.0 > 0);
        self.batch.skipped.bad_value += u64::from(time.is_none());
        Some((time?, value))
    }
}

/// Makes a struct of optional fields, which is read from an object, and from anything else with all of them missing.
macro_rules! loose {
    ($(#[$doc:meta])* struct $name:ident { $($key:literal => $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        struct $name<'a> { $($field: $kind,)* marker: PhantomData<&'a ()> }

        impl<'de: 'a, 'a> Deserialize<'de> for $name<'a> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields<'a>(PhantomData<&'a ()>);

                impl<'de: 'a, 'a> Visitor<'de> for Fields<'a> {
                    type Value = $name<'a>;
                    scalars!($name::default());

                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                        let mut read = $name::default();
                        while let Some(key) = map.next_key::<Text<'_>>()? {
                            match key.0.as_deref() {
                                $(Some($key) => read.$field = map.next_value()?,)*
                                _ => drop(map.next_value::<IgnoredAny>()?),
                            }
                        }
                        Ok(read)
                    }

                    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                        while seq.next_element::<IgnoredAny>()?.is_some() {}
                        Ok($name::default())
                    }
                }
                deserializer.deserialize_any(Fields(PhantomData))
            }
        }
    };
}

/// What a visitor makes of values that are neither object, list, number nor text; `$text` also of texts and numbers.
macro_rules! scalars {
    ($default:expr) => {
        scalars!(only $default);

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($default)
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($default)
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($default)
        }

        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok($default)
        }
    };
    (only $default:expr) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("anything")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($default)
        }

        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($default)
        }
    };
}

/// What a visitor makes of objects and lists where it expects neither.
macro_rules! no_containers {
    ($default:expr) => {
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok($default)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok($default)
        }
    };
}

loose! {
    struct Summary {
        "node" => node: Option<Stats<'a>>,
        "pods" => pods: Option<List<Pod<'a>>>,
    }
}

loose! {
    struct Pod {
        "podRef" => reference: Option<Reference<'a>>,
        "containers" => containers: Option<List<Stats<'a>>>,
    }
}

loose! {
    struct Reference {
        "name" => name: Text<'a>,
        "namespace" => namespace: Text<'a>,
    }
}

loose! {
    /// Of a node or a container.
    struct Stats {
        "name" => name: Text<'a>,
        "startTime" => start: Text<'a>,
        "cpu" => cpu: Option<Cpu<'a>>,
        "memory" => memory: Option<Memory<'a>>,
        "swap" => swap: Option<Swap<'a>>,
    }
}

loose! {
    struct Cpu {
        "time" => time: Text<'a>,
        "usageCoreNanoSeconds" => total: Number,
    }
}

loose! {
    struct Memory {
        "time" => time: Text<'a>,
        "workingSetBytes" => working_set: Number,
    }
}

loose! {
    struct Swap {
        "time" => time: Text<'a>,
        "swapUsageBytes" => used: Number,
    }
}

/// A list; nothing for what is none.
#[derive(Debug)]
struct List<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
            type Value = List<T>;
            scalars!(List(Vec::new()));

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut read = Vec::new();
                while let Some(element) = seq.next_element()? {
                    read.push(element);
                }
                Ok(List(read))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(List(Vec::new()))
            }
        }
        deserializer.deserialize_any(Elements(PhantomData))
    }
}

/// A text; nothing for what is none.
#[derive(Clone, Debug, Default)]
struct Text<'a>(Option<Cow<'a, str>>);

impl<'a> Text<'a> {
    fn usable(&self) -> Option<Cow<'a, str>> {
        self.0.clone().filter(|text| is_name(text))
    }

    /// As an RFC 3339 time.
    fn read(&self) -> Option<UnixMillis> {
        self.0.as_deref()?.parse::<Timestamp>().ok().map(UnixMillis::from)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Characters<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Characters<'a> {
            type Value = Text<'a>;
            scalars!(only Text(None));
            no_containers!(Text(None));

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Text(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Text(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Text(None))
            }
        }
        deserializer.deserialize_any(Characters(PhantomData))
    }
}

/// A whole number that is not negative.
#[derive(Clone, Copy, Debug, Default)]
enum Number {
    #[default]
    Missing,
    Bad,
    Good(u64),
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl<'de> Visitor<'de> for Digits {
            type Value = Number;
            no_containers!(Number::Bad);

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Number::Missing)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Number::Bad)
            }

            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                // The API prints quantities from an int64.
                Ok(i64::try_from(number).map_or(Number::Bad, |_| Number::Good(number)))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Number::Bad)
            }

            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(whole(number).map_or(Number::Bad, Number::Good))
            }

            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Number::Bad)
            }
        }
        deserializer.deserialize_any(Digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Skipped, decode};

    const ASKED: UnixMillis = UnixMillis(1_795_452_100_000);
    const SUMMARY: &[u8] = include_bytes!("../../tests/fixtures/stats-summary.json");
    const RESOURCE: &[u8] = include_bytes!("../../tests/fixtures/metrics-resource.prom");

    #[test]
    fn both_recorded_answers_of_one_kubelet_say_the_same() {
        let summary = decode_summary(SUMMARY, ASKED).unwrap();
        let resource = decode(RESOURCE, ASKED).unwrap();
        assert_eq!((summary.skipped, summary.complete), (Skipped::default(), true));
        let names = |batch: &Batch<'_>| -> Vec<_> {
            let keys = batch.containers.iter().map(|c| (c.pod_key(), c.name.clone()));
            keys.map(|((namespace, pod), name)| format!("{namespace}/{pod}/{name}"))
                .collect()
        };
        assert_eq!(names(&summary), names(&resource));
        // They were asked for at slightly different times, and the second cuts times to seconds.
        let near = |a: Option<(UnixMillis, u64)>, b: Option<(UnixMillis, u64)>| {
            let ((at, a), (bt, b)) = (a.unwrap(), b.unwrap());
            assert!(
                at.0.abs_diff(bt.0) < 15_000 && a.abs_diff(b) <= a / 20,
                "{at:?} {a} {bt:?} {b}"
            );
        };
        near(summary.node.cpu, resource.node.cpu);
        near(summary.node.memory, resource.node.memory);
        for (a, b) in summary.containers.iter().zip(&resource.containers) {
            near(a.parts.cpu, b.parts.cpu);
            near(a.parts.memory, b.parts.memory);
            assert_eq!(a.parts.start.unwrap().0 / 1000, b.parts.start.unwrap().0 / 1000);
            assert_eq!(a.parts.swap.unwrap().1, b.parts.swap.unwrap().1);
        }
        assert_eq!(summary.node.cpu.unwrap().1, resource.node.cpu.unwrap().1);
    }

    #[test]
    fn names_are_borrowed() {
        let batch = decode_summary(SUMMARY, ASKED).unwrap();
        assert!(
            batch
                .containers
                .iter()
                .all(|c| matches!((&c.name, &c.pod), (Cow::Borrowed(_), Cow::Borrowed(_))))
        );
    }

    #[test]
    fn a_bad_value_costs_itself_only() {
        let good = r#""memory":{"time":"2026-11-23T16:41:42Z","workingSetBytes":7}"#;
        let time = r#""time":"2026-11-23T16:41:42Z""#;
        for (cpu, bad) in [
            (r#""oops""#.to_owned(), 0),
            ("[1,{}]".to_owned(), 0),
            ("null".to_owned(), 0),
            ("7.5".to_owned(), 0),
            ("{}".to_owned(), 0),
            (format!(r#"{{{time},"usageCoreNanoSeconds":null}}"#), 0),
            (format!(r#"{{{time},"usageCoreNanoSeconds":"1"}}"#), 1),
            (format!(r#"{{{time},"usageCoreNanoSeconds":-1}}"#), 1),
            (
                format!(r#"{{{time},"usageCoreNanoSeconds":18446744073709551615}}"#),
                1,
            ),
            (format!(r#"{{{time},"usageCoreNanoSeconds":{{"a":[1]}}}}"#), 1),
            (r#"{"time":"yesterday","usageCoreNanoSeconds":1}"#.to_owned(), 1),
            (
                r#"{"time":"1960-01-01T00:00:00Z","usageCoreNanoSeconds":1}"#.to_owned(),
                1,
            ),
        ] {
            let text = format!(
                r#"{{"node":{{"cpu":{cpu},{good}}},"pods":[{{"podRef":{{"name":"p","namespace":"n"}},"containers":[{{"name":"c","cpu":{cpu},{good}}}]}}]}}"#
            );
            let batch = decode_summary(text.as_bytes(), ASKED).unwrap();
            let expected = Parts {
                memory: Some((UnixMillis(1_795_452_102_000), 7)),
                ..Parts::default()
            };
            assert_eq!(
                (batch.node, batch.containers[0].parts),
                (expected, expected),
                "{text}"
            );
            assert_eq!(
                (batch.skipped.bad_value, batch.complete),
                (bad * 2, true),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_told_apart_makes_the_answer_incomplete() {
        for text in [
            r#"{"node":{},"pods":[{"containers":[{"name":"c"}]}]}"#,
            r#"{"node":{},"pods":[{"podRef":{"name":"p","namespace":""},"containers":[{"name":"c"}]}]}"#,
            r#"{"node":{},"pods":[{"podRef":{"name":"p","namespace":"n"},"containers":[7]}]}"#,
            r#"{"node":{"cpu":{"usageCoreNanoSeconds":1}}}"#,
        ] {
            assert!(
                !decode_summary(text.as_bytes(), ASKED).unwrap().complete,
                "{text}"
            );
        }
        let untimed = decode_summary(br#"{"node":{"cpu":{"usageCoreNanoSeconds":1}}}"#, ASKED).unwrap();
        assert_eq!((untimed.node.cpu, untimed.untimed), (Some((ASKED, 1)), true));
    }

    #[test]
    fn what_is_no_summary_is_refused() {
        for text in [
            "",
            "{",
            "[]",
            "7",
            r#"{"kind":"Status","code":403}"#,
            r#"{"node":{}"#,
            "node_cpu_usage_seconds_total 1\n",
        ] {
            let read = decode_summary(text.as_bytes(), ASKED);
            assert_eq!(read, Err(DecodeError::Malformed), "{text}");
        }
        let many = r#"{"name":"c"},"#.repeat(MAX_CONTAINERS * FAMILIES + 2);
        let text =
            format!(r#"{{"pods":[{{"podRef":{{"name":"p","namespace":"n"}},"containers":[{many}{{}}]}}]}}"#);
        let read = decode_summary(text.as_bytes(), ASKED);
        assert_eq!(read, Err(DecodeError::TooManyContainers));
    }

    proptest::proptest! {
        #[test]
        fn any_damage_is_read_without_a_panic(at in 0..SUMMARY.len(), damage: [u8; 3], cut in 0..SUMMARY.len()) {
            let mut bytes = SUMMARY.to_vec();
            bytes.splice(at..(at + 2).min(SUMMARY.len()), damage);
            let _ = decode_summary(&bytes, ASKED);
            proptest::prop_assert!(decode_summary(SUMMARY.get(..cut).unwrap(), ASKED).is_err());
        }
    }
}
