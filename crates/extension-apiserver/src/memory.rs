//! A resource kept in memory, with one version counter and a bounded history: everything that kubectl does works on it.

mod history;
mod metadata;
mod stored;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

pub use self::history::History;
use self::metadata::{Name, has_finalizers, name_at, name_of, set, text, time, uuid};
use self::stored::Stored;
use crate::json::JsonArray;
use crate::resource::{Item, Key, ListScope, Resource, ResourceInfo};
use crate::status::{Cause, Status};
use crate::write::{Change, Create, Delete, Preconditions, Show, Update, Watch};

/// What is particular about the objects of one kind.
pub trait Kind: Send + Sync + 'static {
    /// What is wrong with an object, by field. `before` is what it is to replace.
    fn validate(&self, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        let _ = (object, before);
        Vec::new()
    }

    /// Appends one cell for each of [`ResourceInfo::columns`].
    fn write_cells(&self, object: &Value, cells: &mut JsonArray<'_>);
}

/// The resource.
pub struct Memory {
    info: ResourceInfo,
    group: &'static str,
    kind: Box<dyn Kind>,
    state: RwLock<State>,
    versions: watch::Sender<u64>,
    random: RandomState,
}

struct State {
    version: u64,
    objects: BTreeMap<Name, Arc<Value>>,
    history: History<Event>,
}

struct Event {
    before: Option<Arc<Value>>,
    after: Option<Arc<Value>>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// An empty resource of that group that remembers so many changes.
    #[must_use]
    pub fn new(group: &'static str, info: ResourceInfo, kind: impl Kind, history: usize) -> Self {
        // Versions go on from the clock, so that one of an earlier run of the process is never taken for one of this.
        let version = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let state = State {
            version,
            objects: BTreeMap::new(),
            history: History::new(version, history),
        };
        Self {
            info,
            group,
            kind: Box::new(kind),
            state: RwLock::new(state),
            versions: watch::Sender::new(version),
            random: RandomState::new(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn item<'a>(&'a self, object: &'a Value) -> Stored<'a> {
        let kind = self.kind.as_ref();
        Stored { object, kind }
    }

    fn not_found(&self, name: &str) -> Status {
        Status::not_found(self.group, self.info.plural, name)
    }

    fn check(&self, object: &Value, before: Option<&Value>) -> Result<(), Status> {
        match self.kind.validate(object, before) {
            causes if causes.is_empty() => Ok(()),
            causes => {
                let name = text(object, "/metadata/name").unwrap_or_default();
                Err(Status::invalid(self.group, self.info.kind, name, causes))
            }
        }
    }

    /// Puts `after` in the place of `before` with the next version, and shows it.
    fn put(&self, mut state: RwLockWriteGuard<'_, State>, change: Put, show: Show<'_>) {
        let Put {
            name,
            before,
            mut object,
            removes,
            dry_run,
        } = change;
        let version = state.version + 1;
        set(&mut object, "resourceVersion", json!(version.to_string()));
        show(&self.item(&object));
        if dry_run {
            return;
        }
        let object = Arc::new(object);
        let event = if removes {
            state.objects.remove(&name);
            // The object as it was, with the version of its end.
            Event {
                before: Some(object),
                after: None,
            }
        } else {
            state.objects.insert(name, Arc::clone(&object));
            Event {
                before,
                after: Some(object),
            }
        };
        state.version = version;
        state.history.push(version, event);
        drop(state);
        self.versions.send_replace(version);
    }
}

struct Put {
    name: Name,
    before: Option<Arc<Value>>,
    object: Value,
    removes: bool,
    dry_run: bool,
}

impl Resource for Memory {
    fn info(&self) -> &ResourceInfo {
        &self.info
    }

    fn get(&self, key: Key<'_>, visit: &mut dyn FnMut(&dyn Item)) -> Result<(), Status> {
        let state = self.read();
        let object = state
            .objects
            .get(&name_at(key))
            .ok_or_else(|| self.not_found(key.name))?;
        visit(&self.item(object));
        Ok(())
    }

    fn list(
        &self,
        scope: ListScope<'_>,
        visit: &mut dyn FnMut(&dyn Item) -> ControlFlow<()>,
    ) -> Result<(), Status> {
        let state = self.read();
        let first = scope
            .namespace
            .map(|namespace| (namespace.to_owned(), String::new()));
        let after = scope.after.map(name_at);
        let start = match (after, first) {
            (Some(after), Some(first)) if after < first => Bound::Included(first),
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(first)) => Bound::Included(first),
            (None, None) => Bound::Unbounded,
        };
        for (name, object) in state.objects.range((start, Bound::Unbounded)) {
            let wanted = scope.namespace.is_none_or(|namespace| *namespace == *name.0);
            if !wanted || visit(&self.item(object)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn version(&self) -> Option<String> {
        Some(self.read().version.to_string())
    }

    fn creates(&self) -> Option<&dyn Create> {
        Some(self)
    }

    fn updates(&self) -> Option<&dyn Update> {
        Some(self)
    }

    fn deletes(&self) -> Option<&dyn Delete> {
        Some(self)
    }

    fn watches(&self) -> Option<&dyn Watch> {
        Some(self)
    }
}

impl Create for Memory {
    fn create(&self, mut object: Value, dry_run: bool, show: Show<'_>) -> Result<(), Status> {
        self.check(&object, None)?;
        let (name, state) = (name_of(&object), self.lock());
        if state.objects.contains_key(&name) {
            return Err(Status::already_exists(self.group, self.info.plural, &name.1));
        }
        let random = |salt: u8| self.random.hash_one((state.version, &name, salt));
        set(&mut object, "uid", json!(uuid(random(0), random(1))));
        set(&mut object, "creationTimestamp", time(Timestamp::now()));
        set(&mut object, "generation", json!(1));
        for unset in ["deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"] {
            set(&mut object, unset, Value::Null);
        }
        let change = Put {
            name,
            before: None,
            object,
            removes: false,
            dry_run,
        };
        self.put(state, change, show);
        Ok(())
    }
}

impl Update for Memory {
    fn update(&self, mut object: Value, dry_run: bool, show: Show<'_>) -> Result<(), Status> {
        let (name, state) = (name_of(&object), self.lock());
        let before = state.objects.get(&name).cloned();
        let before = before.ok_or_else(|| self.not_found(&name.1))?;
        for pointer in ["/metadata/resourceVersion", "/metadata/uid"] {
            let expected = text(&object, pointer).filter(|expected| !expected.is_empty());
            if expected.is_some_and(|expected| text(&before, pointer) != Some(expected)) {
                return Err(Status::conflict(self.group, self.info.plural, &name.1));
            }
        }
        for kept in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "resourceVersion",
        ] {
            let value = before
                .pointer("/metadata")
                .and_then(|metadata| metadata.get(kept));
            set(&mut object, kept, value.cloned().unwrap_or_default());
        }
        set(&mut object, "managedFields", Value::Null);
        self.check(&object, Some(&before))?;
        if object == *before {
            show(&self.item(&before));
            return Ok(());
        }
        let fields = |object: &Value| {
            let mut fields = object.as_object().cloned().unwrap_or_default();
            fields.remove("metadata");
            fields
        };
        if fields(&object) != fields(&before) {
            let generation = before.pointer("/metadata/generation").and_then(Value::as_u64);
            set(
                &mut object,
                "generation",
                json!(generation.unwrap_or_default() + 1),
            );
        }
        let ending = text(&object, "/metadata/deletionTimestamp").is_some();
        let removes = ending && !has_finalizers(&object);
        let change = Put {
            name,
            before: Some(before),
            object,
            removes,
            dry_run,
        };
        self.put(state, change, show);
        Ok(())
    }
}

impl Delete for Memory {
    fn delete(&self, key: Key<'_>, preconditions: &Preconditions, dry_run: bool) -> Result<(), Status> {
        let (name, state) = (name_at(key), self.lock());
        let before = state.objects.get(&name).cloned();
        let before = before.ok_or_else(|| self.not_found(key.name))?;
        for (expected, pointer) in [
            (&preconditions.uid, "/metadata/uid"),
            (&preconditions.resource_version, "/metadata/resourceVersion"),
        ] {
            if expected.is_some() && expected.as_deref() != text(&before, pointer) {
                return Err(Status::conflict(self.group, self.info.plural, key.name));
            }
        }
        let mut object = Value::clone(&before);
        let removes = !has_finalizers(&object);
        if !removes {
            if text(&object, "/metadata/deletionTimestamp").is_some() {
                return Ok(());
            }
            set(&mut object, "deletionTimestamp", time(Timestamp::now()));
            set(&mut object, "deletionGracePeriodSeconds", json!(0));
        }
        let change = Put {
            name,
            before: Some(before),
            object,
            removes,
            dry_run,
        };
        self.put(state, change, &mut |_| {});
        Ok(())
    }
}

impl Watch for Memory {
    fn version(&self) -> u64 {
        self.read().version
    }

    fn changes(
        &self,
        after: u64,
        visit: &mut dyn FnMut(u64, Change<'_>) -> ControlFlow<()>,
    ) -> Result<(), Status> {
        let state = self.read();
        let changes = state.history.after(after);
        let changes = changes.ok_or_else(|| Status::expired(after, state.history.known_after()))?;
        for (version, event) in changes {
            let before = event.before.as_deref().map(|object| self.item(object));
            let after = event.after.as_deref().map(|object| self.item(object));
            let change = Change {
                before: before.as_ref().map(|item| item as &dyn Item),
                after: after.as_ref().map(|item| item as &dyn Item),
            };
            if visit(version, change).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn snapshot(&self, visit: &mut dyn FnMut(&dyn Item)) -> u64 {
        let state = self.read();
        state
            .objects
            .values()
            .for_each(|object| visit(&self.item(object)));
        state.version
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.versions.subscribe()
    }
}
