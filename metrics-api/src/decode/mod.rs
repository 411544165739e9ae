//! kubelet's `/metrics/resource`, from bytes to a [`Batch`] that borrows from them.
//!
//! The format is Prometheus' text exposition 0.0.4; the families are those of kubelet's
//! `pkg/kubelet/metrics/collectors/resource_metrics.go`. Of some fifteen families five are wanted; lines of the
//! others are skipped by their first bytes. A line that cannot be used costs its own value and nothing else, and
//! is counted.

mod line;

use std::borrow::Cow;

use crate::time::UnixMillis;
use line::{Family, Labels, Refused, Sample};

/// Most bytes of one answer. A container has five series of some 200 bytes each and a pod three: 8 MiB hold 7000
/// containers, while the largest supported node has 110 pods (Kubernetes' own limit; 500 on large installations).
pub const MAX_BODY: usize = 8 * 1024 * 1024;

/// One answer of one kubelet.
#[derive(Debug, Default, PartialEq)]
pub struct Batch<'a> {
    /// The node's own series.
    pub node: Parts,
    /// Every container that the answer mentions, ordered by namespace, pod and container name.
    pub containers: Vec<Container<'a>>,
    /// Whether what is not in `containers` does not run: kubelet reported no error of its own, and of every line of a
    /// wanted family it could be read which container it is about.
    pub complete: bool,
    /// What was left out.
    pub skipped: Skipped,
}

/// One container of the answer.
#[derive(Debug, PartialEq)]
pub struct Container<'a> {
    /// Namespace of its pod.
    pub namespace: Cow<'a, str>,
    /// Name of its pod.
    pub pod: Cow<'a, str>,
    /// Its name within the pod.
    pub name: Cow<'a, str>,
    /// Its series.
    pub parts: Parts,
}

/// What was said about one node or container. Any part can be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// CPU time used since its start, in nanoseconds, and when that was read.
    pub cpu: Option<(UnixMillis, u64)>,
    /// Working set in bytes, and when that was read.
    pub memory: Option<(UnixMillis, u64)>,
    /// When it started.
    pub start: Option<UnixMillis>,
}

/// Counts of lines of wanted families that were not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Not a sample, or without the labels it needs.
    pub malformed: u64,
    /// The value is not a finite number, is negative, or is too large to be true.
    pub bad_value: u64,
    /// The series came twice; the later reading was kept.
    pub duplicate: u64,
}

/// The answer is no resource metrics exposition at all: not one of its lines is a sample that this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer holds no resource metrics")]
pub struct Malformed;

/// Reads an answer. `asked` is when it was asked for: the time of samples that carry none.
pub fn decode(body: &[u8], asked: UnixMillis) -> Result<Batch<'_>, Malformed> {
    let mut known_lines = 0_u64;
    let mut complete = true;
    let mut batch = Batch::default();
    let mut place = Place::default();
    for line in lines(body) {
        let Some((family, rest)) = Family::of(line) else {
            continue;
        };
        let Some((labels, rest)) = Labels::parse(rest) else {
            batch.skipped.malformed += 1;
            complete = false;
            continue;
        };
        let sample = Sample::parse(rest);
        known_lines += u64::from(sample != Err(Refused::Malformed));
        if family == Family::ScrapeError {
            complete &= sample.is_ok_and(|sample| sample.value == 0.0);
            continue;
        }
        let part = sample.and_then(|sample| Part::of(family, sample, asked).ok_or(Refused::BadValue));
        match part {
            Ok(_) => {}
            Err(Refused::Malformed) => batch.skipped.malformed += 1,
            Err(Refused::BadValue) => batch.skipped.bad_value += 1,
        }
        if family.is_of_node() {
            if let Ok(part) = part {
                part.put(&mut batch.node, &mut batch.skipped);
            }
        } else if let Labels {
            namespace: Some(namespace),
            pod: Some(pod),
            container: Some(name),
        } = labels
        {
            // A container whose value cannot be used still runs.
            let parts = Parts::default();
            let told = Container {
                namespace,
                pod,
                name,
                parts,
            };
            let container = place.of(told, family, &mut batch.containers);
            if let (Ok(part), Some(container)) = (part, container) {
                part.put(&mut container.parts, &mut batch.skipped);
            }
        } else {
            batch.skipped.malformed += u64::from(part.is_ok());
            complete = false;
        }
    }
    if known_lines == 0 {
        return Err(Malformed);
    }
    batch.complete = complete;
    join_parts(&mut batch);
    Ok(batch)
}

/// The lines of `body`, without their ends.
fn lines(mut body: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', body).unwrap_or(body.len());
        let (line, rest) = body.split_at_checked(end)?;
        body = rest.get(1..).unwrap_or_default();
        Some(line)
    })
}

/// Where the next line's container is expected. Kubelet writes every family in one order, so that the first family
/// fills the list and each later one walks along it.
#[derive(Default)]
struct Place {
    family: Option<Family>,
    next: usize,
}

impl Place {
    /// The entry for that container: the one that is expected here, or a new one.
    fn of<'a, 'b>(
        &mut self,
        told: Container<'a>,
        family: Family,
        containers: &'b mut Vec<Container<'a>>,
    ) -> Option<&'b mut Container<'a>> {
        if self.family != Some(family) {
            *self = Self {
                family: Some(family),
                next: 0,
            };
        }
        let expected = containers
            .get(self.next)
            .is_some_and(|container| container.key() == told.key());
        if !expected {
            // Where families differ in order, `join_parts` brings together what belongs together.
            self.next = containers.len();
            containers.push(told);
        }
        self.next += 1;
        containers.get_mut(self.next - 1)
    }
}

/// Orders the containers and makes one entry out of several of the same one.
fn join_parts(batch: &mut Batch<'_>) {
    let Batch {
        containers, skipped, ..
    } = batch;
    containers.sort_by(|a, b| a.key().cmp(&b.key()));
    containers.dedup_by(|later, first| {
        let same = later.key() == first.key();
        if same {
            let Parts { cpu, memory, start } = later.parts;
            let parts = [
                cpu.map(Part::Cpu),
                memory.map(Part::Memory),
                start.map(Part::Start),
            ];
            parts
                .into_iter()
                .flatten()
                .for_each(|part| part.put(&mut first.parts, skipped));
        }
        same
    });
}

impl Container<'_> {
    /// Namespace and name of its pod.
    pub(crate) fn pod_key(&self) -> (&str, &str) {
        (&self.namespace, &self.pod)
    }

    fn key(&self) -> (&str, &str, &str) {
        (&self.namespace, &self.pod, &self.name)
    }
}

/// One value, in the store's unit.
#[derive(Clone, Copy)]
enum Part {
    Cpu((UnixMillis, u64)),
    Memory((UnixMillis, u64)),
    Start(UnixMillis),
}

impl Part {
    fn of(family: Family, sample: Sample, asked: UnixMillis) -> Option<Self> {
        let time = sample.time.unwrap_or(asked);
        match family {
            Family::NodeCpu | Family::ContainerCpu => Some(Self::Cpu((time, whole(sample.value * 1e9)?))),
            Family::NodeMemory | Family::ContainerMemory => Some(Self::Memory((time, whole(sample.value)?))),
            Family::ContainerStart => Some(Self::Start(UnixMillis(
                i64::try_from(whole(sample.value * 1e3)?).ok()?,
            ))),
            Family::ScrapeError => None,
        }
    }

    /// Puts this value where it belongs; of two the one read later stays.
    fn put(self, parts: &mut Parts, skipped: &mut Skipped) {
        fn newer(slot: &mut Option<(UnixMillis, u64)>, read: (UnixMillis, u64)) -> bool {
            let duplicate = slot.is_some();
            if slot.is_none_or(|(time, _)| time <= read.0) {
                *slot = Some(read);
            }
            duplicate
        }
        let duplicate = match self {
            Self::Cpu(read) => newer(&mut parts.cpu, read),
            Self::Memory(read) => newer(&mut parts.memory, read),
            Self::Start(start) => {
                let before = parts.start;
                parts.start = before.max(Some(start));
                before.is_some()
            }
        };
        skipped.duplicate += u64::from(duplicate);
    }
}

/// The nearest whole number, if it is one that the API can carry (it prints quantities from an int64).
fn whole(value: f64) -> Option<u64> {
    const LIMIT: f64 = 9.2e18;
    if !(0.0..LIMIT).contains(&value) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked just above: not negative, and below i64::MAX"
    )]
    Some(value.round() as u64)
}

#[cfg(test)]
mod tests;
