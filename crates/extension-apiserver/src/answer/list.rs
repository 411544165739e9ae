//! Lists, written part by part while the client reads.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::binary;
use super::object::{ListMeta, Names, Shape};
use super::paging::{OwnedKey, Page};
use crate::body::Chunks;
use crate::resource::{ListScope, Resource};
use crate::selector::Selection;
use crate::status::Status;

/// How much is written before the resource is let go and the client's turn comes.
pub(super) const PART: usize = 64 * 1024;
/// How many objects are looked at, and requirements of selectors held against them, before that: some milliseconds'
/// work. Without it a selector that matches nothing would walk over everything in one go.
const LOOKS: usize = 20_000;

/// A list that is being written. Between two parts it holds the key of the last object and nothing of the resource.
pub(super) struct List {
    resource: Arc<dyn Resource>,
    version: String,
    names: Names,
    shape: Shape,
    namespace: Option<String>,
    selection: Selection,
    page: Option<Page>,
    place: Place,
    any: bool,
}

enum Place {
    /// Nothing is written; the first object comes after this key.
    Start(Option<OwnedKey>),
    After(OwnedKey),
    End,
}

impl List {
    pub(super) fn new(
        resource: Arc<dyn Resource>,
        names: Names,
        shape: Shape,
        namespace: Option<String>,
        selection: Selection,
        (page, after): (Option<Page>, Option<OwnedKey>),
    ) -> Self {
        // Of the moment before the first object is looked at: a watch that goes on from there misses nothing.
        let version = resource.version().unwrap_or_default();
        Self {
            resource,
            version,
            names,
            shape,
            namespace,
            selection,
            page,
            place: Place::Start(after),
            any: false,
        }
    }

    /// Whether everything is written.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.place, Place::End)
    }

    /// Kind and version of the list.
    pub(super) fn kind(&self) -> (&str, String) {
        self.shape.list_kind(self.resource.info(), &self.names)
    }
}

impl Chunks for List {
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let mut out = Vec::new();
        let after = match &self.place {
            Place::End => return Ok(None),
            Place::Start(after) => {
                let info = self.resource.info();
                let metadata = ListMeta {
                    version: &self.version,
                    token: "",
                };
                let metadata = Some(metadata).filter(|_| self.page.is_none());
                self.shape.open_list(&mut out, info, &self.names, metadata);
                after.as_ref()
            }
            Place::After(after) => {
                out.reserve(PART + PART / 16);
                Some(after)
            }
        };
        let scope = ListScope {
            namespace: self.namespace.as_deref(),
            after: after.map(OwnedKey::borrow),
        };
        let (mut last, mut more) = (Place::End, false);
        let (mut looks, each) = (0, 1 + self.selection.requirements());
        self.resource.list(scope, &mut |item| {
            looks += each;
            if self.selection.matches(item) {
                if let Some(page) = &mut self.page {
                    if page.left == 0 {
                        more = true;
                        return ControlFlow::Break(());
                    }
                    page.left -= 1;
                    if page.left == 0 {
                        page.last = Some(OwnedKey::of(item));
                    }
                }
                if self.any {
                    self.shape.separate(&mut out);
                }
                self.any = true;
                self.shape.item(&mut out, &self.names, item);
            }
            if out.len() < PART && looks < LOOKS {
                return ControlFlow::Continue(());
            }
            last = Place::After(OwnedKey::of(item));
            ControlFlow::Break(())
        })?;
        self.place = last;
        if self.is_done() {
            let token = self
                .page
                .as_ref()
                .map(|page| if more { page.token() } else { String::new() });
            let metadata = token.as_deref().map(|token| ListMeta {
                version: &self.version,
                token,
            });
            self.shape.close_list(&mut out, metadata);
        }
        Ok(Some(out.into()))
    }
}

/// A list as a protobuf document, whose length comes first: it is written as a whole, in turns, before any of it is sent.
pub(super) struct Framed {
    list: List,
    parts: VecDeque<Bytes>,
    place: Frame,
    /// Kept while the list is in memory as a whole.
    _permit: OwnedSemaphorePermit,
}

enum Frame {
    Collecting,
    Sending,
    End,
}

impl Framed {
    /// Goes on with a list of which `first` is written.
    pub(super) fn new(list: List, first: Bytes, permit: OwnedSemaphorePermit) -> Self {
        Self {
            list,
            parts: VecDeque::from([first]),
            place: Frame::Collecting,
            _permit: permit,
        }
    }
}

impl Chunks for Framed {
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        match self.place {
            Frame::Collecting => {
                self.parts.extend(self.list.next()?);
                if !self.list.is_done() {
                    return Ok(Some(Bytes::new()));
                }
                self.parts.retain(|part| !part.is_empty());
                self.place = Frame::Sending;
                let (kind, api_version) = self.list.kind();
                let length = self.parts.iter().map(Bytes::len).sum();
                Ok(Some(binary::head(&api_version, kind, length).into()))
            }
            Frame::Sending => Ok(Some(self.parts.pop_front().unwrap_or_else(|| {
                self.place = Frame::End;
                binary::tail().into()
            }))),
            Frame::End => Ok(None),
        }
    }
}
