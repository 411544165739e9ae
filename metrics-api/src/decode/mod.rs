//! kubelet's `/metrics/resource`, from bytes to a [`Batch`] that borrows from them.
//!
//! The format is Prometheus' text exposition 0.0.4; the families are those of kubelet's
//! `pkg/kubelet/metrics/collectors/resource_metrics.go`. Of some fifteen families seven are wanted; lines of the
//! others are skipped by their first bytes. A line that cannot be used costs its own value and nothing else, and
//! is counted.

mod line;
mod summary;

use std::borrow::Cow;

use crate::time::UnixMillis;
use line::{Family, Labels, Refused, Sample};
pub use summary::decode_summary;

/// Most bytes of one answer. A container has five series of some 200 bytes each and a pod three: 8 MiB hold 7000
/// containers, while the largest supported node has 110 pods (Kubernetes' own limit; 500 on large installations).
pub const MAX_BODY: usize = 8 * 1024 * 1024;

/// Most containers of one answer: the largest supported nodes run 500 pods.
pub const MAX_CONTAINERS: usize = 4096;
/// Longest name of a namespace, pod or container that is taken: that of Kubernetes' own longest names (RFC 1123
/// subdomains).
const LONGEST_NAME: usize = 253;
/// Entries that a list of containers may have for each of them while families are still apart: one for each family,
/// where no two are in the same order.
const FAMILIES: usize = 4;
/// How many entries beyond the expected one are looked at: as many lines in a row may be missing from a family without
/// its getting out of step with the list.
const LOOK_AHEAD: usize = 4;

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
    /// Whether the kubelet says that it could not collect everything.
    pub kubelet_error: bool,
    /// Whether a sample carried no time, so that it has that of the request.
    pub untimed: bool,
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
    /// Swap used in bytes, and when that was read. Only where the node has swap, or says that it uses none.
    pub swap: Option<(UnixMillis, u64)>,
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

/// Why nothing of an answer is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not one of its lines is a sample that this program knows.
    #[error("the answer holds no resource metrics")]
    Malformed,
    /// No node runs so many containers.
    #[error("the answer names more than {MAX_CONTAINERS} containers")]
    TooManyContainers,
}

/// Reads an answer. `asked` is when it was asked for: the time of samples that carry none.
pub fn decode(body: &[u8], asked: UnixMillis) -> Result<Batch<'_>, DecodeError> {
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
            batch.kubelet_error |= sample.is_ok_and(|sample| sample.value != 0.0);
            complete &= sample.is_ok_and(|sample| sample.value == 0.0);
            continue;
        }
        batch.untimed |= family != Family::ContainerStart && sample.is_ok_and(|sample| sample.time.is_none());
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
        } else if let Some(told) = container_of(labels) {
            if batch.containers.len() > MAX_CONTAINERS * FAMILIES {
                return Err(DecodeError::TooManyContainers);
            }
            // A container whose value cannot be used still runs.
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
        return Err(DecodeError::Malformed);
    }
    batch.complete = complete;
    batch.finish()
}

/// The container that a line's labels name. An empty label is one that is not there, as everywhere in Prometheus, and
/// no name in Kubernetes is longer than [`LONGEST_NAME`].
fn container_of(labels: Labels<'_>) -> Option<Container<'_>> {
    let fit = [&labels.namespace, &labels.pod, &labels.container]
        .into_iter()
        .all(|label| label.as_deref().is_some_and(is_name));
    fit.then_some(())?;
    Some(Container {
        namespace: labels.namespace?,
        pod: labels.pod?,
        name: labels.container?,
        parts: Parts::default(),
    })
}

fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len())
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
        let ahead = containers.iter().skip(self.next).take(LOOK_AHEAD);
        let found = ahead
            .zip(self.next..)
            .find(|(container, _)| container.key() == told.key());
        let at = found.map(|(_, at)| at);
        let at = at.unwrap_or_else(|| {
            // Where families differ in order, `join_parts` brings together what belongs together.
            containers.push(told);
            containers.len() - 1
        });
        self.next = at + 1;
        containers.get_mut(at)
    }
}

impl Batch<'_> {
    /// Brings the containers in order and together.
    fn finish(mut self) -> Result<Self, DecodeError> {
        join_parts(&mut self);
        if self.containers.len() > MAX_CONTAINERS {
            return Err(DecodeError::TooManyContainers);
        }
        Ok(self)
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
            let Parts {
                cpu,
                memory,
                start,
                swap,
            } = later.parts;
            let parts = [
                cpu.map(Part::Cpu),
                memory.map(Part::Memory),
                start.map(Part::Start),
                swap.map(Part::Swap),
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
    Swap((UnixMillis, u64)),
}

impl Part {
    fn of(family: Family, sample: Sample, asked: UnixMillis) -> Option<Self> {
        let time = sample.time.unwrap_or(asked);
        match family {
            Family::NodeCpu | Family::ContainerCpu => Some(Self::Cpu((time, whole(sample.value * 1e9)?))),
            Family::NodeMemory | Family::ContainerMemory => Some(Self::Memory((time, whole(sample.value)?))),
            Family::NodeSwap | Family::ContainerSwap => Some(Self::Swap((time, whole(sample.value)?))),
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
            Self::Swap(read) => newer(&mut parts.swap, read),
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
