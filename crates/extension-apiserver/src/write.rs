//! The seam for resources that can be changed and watched.
//!
//! A [`Resource`](crate::Resource) says by [`creates`](crate::Resource::creates) and its like what it can do beside get and
//! list; the verbs in discovery follow from that. Objects come as JSON, checked for what holds of every object: kind,
//! version, name and namespace. Patches are made of get and update, and collections are deleted one by one, so that neither
//! has a trait. None of the methods waits.

use std::ops::ControlFlow;

use serde_json::Value;

use crate::resource::{Item, Key};
use crate::status::Status;

/// Shows an object as it is after a change.
pub type Show<'a> = &'a mut dyn FnMut(&dyn Item);

/// Objects can be created.
pub trait Create: Send + Sync {
    /// Creates the object that `metadata` names, unless there is one of that name ([`Status::already_exists`]). With
    /// `dry_run` everything is checked and shown, but nothing kept.
    fn create(&self, object: Value, dry_run: bool, show: Show<'_>) -> Result<(), Status>;
}

/// Objects can be replaced.
pub trait Update: Send + Sync {
    /// Replaces the object that `metadata` names. If it has a `resourceVersion` or `uid`, the object must still have the
    /// same ([`Status::conflict`]).
    fn update(&self, object: Value, dry_run: bool, show: Show<'_>) -> Result<(), Status>;
}

/// Objects can be deleted.
pub trait Delete: Send + Sync {
    /// Deletes the object of that key, if the preconditions hold.
    fn delete(&self, key: Key<'_>, preconditions: &Preconditions, dry_run: bool) -> Result<(), Status>;
}

/// What must hold of an object for it to be deleted (`metav1.Preconditions`).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Preconditions {
    /// `metadata.uid`.
    pub uid: Option<String>,
    /// `metadata.resourceVersion`.
    pub resource_version: Option<String>,
}

/// Changes can be followed.
pub trait Watch: Send + Sync {
    /// The version of the last change.
    fn version(&self) -> u64;

    /// Shows the changes after that version with their own, in their order, until `visit` breaks. The error is
    /// [`Status::expired`] if they are not known any more.
    fn changes(
        &self,
        after: u64,
        visit: &mut dyn FnMut(u64, Change<'_>) -> ControlFlow<()>,
    ) -> Result<(), Status>;

    /// Shows all objects of one moment, and returns its version.
    fn snapshot(&self, visit: &mut dyn FnMut(&dyn Item)) -> u64;

    /// Where to see that there is a new version.
    fn subscribe(&self) -> tokio::sync::watch::Receiver<u64>;
}

/// One change of one object.
pub struct Change<'a> {
    /// The object before; `None` if there was none.
    pub before: Option<&'a dyn Item>,
    /// The object after; `None` if there is none. A deleted object is shown as it was, with the version of its end, by
    /// `before`.
    pub after: Option<&'a dyn Item>,
}

impl std::fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Change")
            .field("before", &self.before.map(Item::name))
            .field("after", &self.after.map(Item::name))
            .finish()
    }
}
