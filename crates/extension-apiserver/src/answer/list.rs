//! Lists, written part by part while the client reads.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::object::{Names, Shape};
use crate::body::Chunks;
use crate::resource::{Key, ListScope, Resource};
use crate::selector::Selection;
use crate::status::Status;

/// How much is written before the resource is let go and the client's turn comes.
const PART: usize = 64 * 1024;
/// How many objects are looked at, and requirements of selectors held against them, before that: some milliseconds'
/// work. Without it a selector that matches nothing would walk over everything in one go.
const LOOKS: usize = 20_000;

/// A list that is being written. Between two parts it holds the key of the last object and nothing of the resource.
pub(super) struct List {
    resource: Arc<dyn Resource>,
    names: Names,
    shape: Shape,
    namespace: Option<String>,
    selection: Selection,
    place: Place,
    any: bool,
}

enum Place {
    Start,
    After(Option<String>, String),
    End,
}

impl List {
    pub(super) fn new(
        resource: Arc<dyn Resource>,
        names: Names,
        shape: Shape,
        namespace: Option<String>,
        selection: Selection,
    ) -> Self {
        Self {
            resource,
            names,
            shape,
            namespace,
            selection,
            place: Place::Start,
            any: false,
        }
    }

    /// Whether everything is written.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.place, Place::End)
    }
}

impl Chunks for List {
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let mut out = Vec::new();
        let after = match &self.place {
            Place::End => return Ok(None),
            Place::Start => {
                self.shape.open_list(&mut out, self.resource.info(), &self.names);
                None
            }
            Place::After(namespace, name) => {
                out.reserve(PART + PART / 16);
                let namespace = namespace.as_deref();
                Some(Key { namespace, name })
            }
        };
        let scope = ListScope {
            namespace: self.namespace.as_deref(),
            after,
        };
        let mut last = Place::End;
        let (mut looks, each) = (0, 1 + self.selection.requirements());
        self.resource.list(scope, &mut |item| {
            looks += each;
            if self.selection.matches(item) {
                if self.any {
                    out.push(b',');
                }
                self.any = true;
                self.shape.item(&mut out, &self.names, item);
            }
            if out.len() < PART && looks < LOOKS {
                return ControlFlow::Continue(());
            }
            last = Place::After(item.namespace().map(str::to_owned), item.name().to_owned());
            ControlFlow::Break(())
        })?;
        self.place = last;
        if self.is_done() {
            Shape::close_list(&mut out);
        }
        Ok(Some(out.into()))
    }
}
