//! Watches: the changes of a collection, one JSON document a line, for as long as the client wants.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::negotiate::{Accepted, Media};
use super::object::{Names, Shape};
use super::options;
use super::reply::Answer;
use crate::body::Body;
use crate::request::Query;
use crate::resource::{Item, Resource};
use crate::selector::Selection;
use crate::status::{Cause, Quoted, Status};
use crate::write::Watch;

/// The longest that a watch lasts; clients begin the next one where it ended. Also what those get that say nothing, as by
/// `--min-request-timeout` of kube-apiserver.
pub(crate) const LONGEST: Duration = Duration::from_mins(30);
/// How often those who want to know are told the version that they have seen everything of.
const BOOKMARKS: Duration = Duration::from_mins(1);
/// How much is written at once.
const PART: usize = 64 * 1024;
/// How many changes are looked at at once.
const LOOKS: usize = 2000;

/// What a watch is asked for by.
pub(super) struct WatchRequest {
    pub(super) names: Names,
    pub(super) shape: Shape,
    pub(super) namespace: Option<String>,
    pub(super) selection: Selection,
    pub(super) accepted: Accepted,
}

/// A watch that is being answered.
struct Watching {
    resource: Arc<dyn Resource>,
    ask: WatchRequest,
    versions: tokio::sync::watch::Receiver<u64>,
    /// Everything up to this version has been told.
    seen: u64,
    /// What the watch begins with, while it is not sent.
    initial: Vec<Bytes>,
    bookmarks: bool,
    /// When the next bookmark is due, and when the watch ends.
    bookmark: Instant,
    end: Instant,
    ending: CancellationToken,
}

/// Answers a watch.
pub(super) fn answer(
    resource: &Arc<dyn Resource>,
    ask: WatchRequest,
    query: &Query,
    ending: CancellationToken,
) -> Result<Answer, Status> {
    let watch = watch_of(resource.as_ref())?;
    if ask.accepted.encoding.media != Media::Json {
        return Err(Status::form_not_acceptable(
            "only the following media types are accepted: application/json;stream=watch",
        ));
    }
    let (from, initial) = start(query)?;
    let bookmarks = query.flag("allowWatchBookmarks");
    let timeout = match query
        .first("timeoutSeconds")
        .and_then(|seconds| seconds.parse().ok())
    {
        None | Some(0) => LONGEST,
        Some(seconds) => LONGEST.min(Duration::from_secs(seconds)),
    };
    let now = Instant::now();
    let mut watching = Watching {
        resource: Arc::clone(resource),
        versions: watch.subscribe(),
        seen: from,
        initial: Vec::new(),
        bookmarks,
        bookmark: now + BOOKMARKS,
        end: now + timeout,
        ending,
        ask,
    };
    if let Some(initial) = initial {
        watching.begin(watch, initial == Initial::Told);
    } else {
        // Whoever comes too late is told at once.
        watch.changes(from, &mut |_, _| ControlFlow::Break(()))?;
    }
    let events = stream::try_unfold(watching, Watching::next);
    let body = Body::events(events);
    Ok(Answer::body(body, Media::Json))
}

fn watch_of(resource: &dyn Resource) -> Result<&dyn Watch, Status> {
    resource.watches().ok_or_else(Status::method_not_allowed)
}

/// Whether the objects there are come first, and whether their end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Initial {
    Silent,
    Told,
}

/// Where a watch begins: after a version, or with what there is.
fn start(query: &Query) -> Result<(u64, Option<Initial>), Status> {
    let version = query.first("resourceVersion").unwrap_or_default();
    let from = match version {
        "" => 0,
        version => version.parse().map_err(|_| {
            let expected = "expected a version that a list or watch has told";
            options::invalid(vec![Cause::invalid(
                "resourceVersion",
                &Quoted(version),
                expected,
            )])
        })?,
    };
    let told = query
        .first("sendInitialEvents")
        .is_some_and(|told| !told.is_empty());
    let initial = match (told && query.flag("sendInitialEvents"), from) {
        (true, _) => Some(Initial::Told),
        (false, 0) if !told => Some(Initial::Silent),
        _ => None,
    };
    Ok((from, initial))
}

impl Watching {
    /// Writes the objects that there are.
    fn begin(&mut self, watch: &dyn Watch, told: bool) {
        let mut out = Vec::new();
        let mut parts = Vec::new();
        let ask = &self.ask;
        let info = self.resource.info();
        self.seen = watch.snapshot(&mut |item| {
            if ask.wants(item) {
                ask.event(&mut out, info, "ADDED", item);
                if out.len() >= PART {
                    parts.push(Bytes::from(std::mem::take(&mut out)));
                }
            }
        });
        if told {
            self.write_bookmark(&mut out, true);
        }
        parts.push(out.into());
        parts.retain(|part| !part.is_empty());
        // They are taken from the end.
        parts.reverse();
        self.initial = parts;
    }

    /// What is told next, when there is something.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Status> {
        if let Some(part) = self.initial.pop() {
            return Ok(Some((part, self)));
        }
        loop {
            let newest = *self.versions.borrow_and_update();
            if newest > self.seen {
                let (part, ended) = self.changes(newest)?;
                if ended {
                    self.end = Instant::now();
                }
                if !part.is_empty() {
                    return Ok(Some((part, self)));
                }
                tokio::task::yield_now().await;
                if self.seen < newest && !ended {
                    continue;
                }
            }
            let ending = self.ending.clone();
            tokio::select! {
                biased;
                () = ending.cancelled() => return Ok(None),
                () = tokio::time::sleep_until(self.end) => return Ok(None),
                () = tokio::time::sleep_until(self.bookmark), if self.bookmarks => {
                    self.bookmark = Instant::now() + BOOKMARKS;
                    let mut out = Vec::new();
                    self.write_bookmark(&mut out, false);
                    return Ok(Some((out.into(), self)));
                }
                changed = self.versions.changed() => {
                    if changed.is_err() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Writes some of the changes up to the newest. Whoever reads too slowly is told that changes are lost, and `true` is
    /// returned.
    fn changes(&mut self, newest: u64) -> Result<(Bytes, bool), Status> {
        let watch = watch_of(self.resource.as_ref())?;
        let (ask, info) = (&self.ask, self.resource.info());
        let (mut out, mut seen, mut looks) = (Vec::new(), newest, 0);
        let looked = watch.changes(self.seen, &mut |version, change| {
            let before = change.before.filter(|item| ask.wants(*item));
            let after = change.after.filter(|item| ask.wants(*item));
            match (before, after) {
                (None, Some(item)) => ask.event(&mut out, info, "ADDED", item),
                (Some(_), Some(item)) => ask.event(&mut out, info, "MODIFIED", item),
                // What is not selected any more is gone for this client, as it is now.
                (Some(item), None) => ask.event(&mut out, info, "DELETED", change.after.unwrap_or(item)),
                (None, None) => {}
            }
            looks += 1;
            if out.len() < PART && looks < LOOKS {
                seen = seen.max(version);
                return ControlFlow::Continue(());
            }
            seen = version;
            ControlFlow::Break(())
        });
        self.seen = seen;
        if let Err(status) = looked {
            out.extend_from_slice(b"{\"type\":\"ERROR\",\"object\":");
            out.extend(status.to_json());
            out.extend_from_slice(b"}\n");
            return Ok((out.into(), true));
        }
        Ok((out.into(), false))
    }

    fn write_bookmark(&self, out: &mut Vec<u8>, initial: bool) {
        let mut metadata = json!({"resourceVersion": self.seen.to_string(), "creationTimestamp": null});
        if initial && let Some(metadata) = metadata.as_object_mut() {
            let end = json!({"k8s.io/initial-events-end": "true"});
            metadata.insert("annotations".to_owned(), end);
        }
        let names = &self.ask.names;
        let object = json!({"kind": names.kind, "apiVersion": names.api_version, "metadata": metadata});
        out.extend(
            json!({"type": "BOOKMARK", "object": object})
                .to_string()
                .into_bytes(),
        );
        out.push(b'\n');
    }
}

impl WatchRequest {
    fn wants(&self, item: &dyn Item) -> bool {
        let namespace = self.namespace.as_deref();
        namespace.is_none_or(|namespace| item.namespace() == Some(namespace)) && self.selection.matches(item)
    }

    fn event(&self, out: &mut Vec<u8>, info: &crate::ResourceInfo, kind: &str, item: &dyn Item) {
        out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
        self.shape.single(out, info, &self.names, item);
        // The object came with a newline.
        while out.last() == Some(&b'\n') {
            out.pop();
        }
        out.extend_from_slice(b"}\n");
    }
}
