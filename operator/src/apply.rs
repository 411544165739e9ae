//! Makes the cluster as the plan has it: server-side apply in order, the registration last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use contract::names;
use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::contest::{self, Contest, Contests};
use crate::desired::{self, Object, Objects};
use crate::observe::Conflict;
use crate::repair::Repair;
use crate::{cluster, drift, kinds, ownership, registration};

/// Time for kube-apiserver's authorizer to hear of a Role that was just made.
const ROLE_IS_KNOWN: Duration = Duration::from_secs(1);

/// Applies objects, and remembers how kube-apiserver wrote them.
pub struct Applier {
    client: Client,
    namespace: String,
    /// Objects as they were after our last write, by description.
    written: BTreeMap<String, Written>,
    contests: Contests,
    /// What was put right since the last apply.
    repaired: Vec<Repair>,
    /// Whether objects of ours that are no longer made have been looked for.
    pruned: bool,
}

/// What is remembered of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    /// Digest of what was asked for.
    asked: u64,
    /// And of what kube-apiserver made of it.
    kept: u64,
    /// And of all the data that it had then.
    data: u64,
}

/// What became of an object that shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// It was written.
    Written,
    /// There was nothing to do: it is as it shall be, on its way out, or not ours.
    Nothing,
    /// It is left as somebody else made it, for a while.
    HeldOff,
}

impl Done {
    fn wrote(self) -> bool {
        self == Self::Written
    }
}

/// What an apply did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// Objects with a name of ours that are not ours. They were left alone.
    pub conflicts: Vec<Conflict>,
    /// Objects of ours that somebody else keeps changing.
    pub contests: Vec<Contest>,
    /// What could not be done and why, in one line each.
    pub errors: Vec<String>,
    /// The same about what is for Prometheus and Grafana.
    pub monitoring_errors: Vec<String>,
    /// Number of objects written or deleted.
    pub writes: u64,
    /// Whether the registration was written.
    pub registered: bool,
    /// Whether the certificate authority is stored as it shall be.
    pub authority: bool,
    /// And every other certificate too.
    pub certificates: bool,
    /// What somebody else had changed or deleted.
    pub repaired: Vec<Repair>,
}

/// There is no point in going on: kube-apiserver does not answer, or what all else rests on is missing.
struct Stop;

impl Applier {
    /// For the objects of the operator in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            written: BTreeMap::new(),
            contests: Contests::default(),
            repaired: Vec::new(),
            pruned: false,
        }
    }

    /// Deletes a registration that shall not be, applies what shall be, deletes what has no use then, and registers last.
    /// Objects that are as they shall be are not written. One that kube-apiserver refuses does not keep the others.
    pub async fn apply(&mut self, objects: &Objects) -> Applied {
        let mut applied = Applied::default();
        // The end of an apply that stopped is in its errors.
        let _stopped = self.try_apply(objects, &mut applied).await;
        applied.contests = self.contests.all();
        applied.repaired = std::mem::take(&mut self.repaired);
        applied
    }

    async fn try_apply(&mut self, objects: &Objects, applied: &mut Applied) -> Result<(), Stop> {
        for object in &objects.unregistered {
            let result = self.remove(object).await;
            applied.note(&object.describe(), result)?;
        }
        let mut certificates = true;
        for object in &objects.base {
            let conflicts = applied.conflicts.len();
            let result = self.ensure(object, &mut applied.conflicts).await;
            let done = matches!(result, Ok(Done::Written | Done::Nothing));
            let stored = done && applied.conflicts.len() == conflicts;
            certificates &= stored || !object.is_secret();
            applied.note(&object.describe(), result.map(Done::wrote))?;
            if object.is_authority() {
                applied.authority = stored;
                if !stored {
                    // What runs goes on with the certificates it has. With those of an authority that is nowhere kept,
                    // and so made anew from turn to turn, nobody could read.
                    return Err(Stop);
                }
            }
        }
        applied.certificates = certificates;
        // Not if the Deployment could not be written: it may still mount what goes here.
        if applied.errors.is_empty() {
            for object in &objects.absent {
                let result = self.remove(object).await;
                applied.note(&object.describe(), result)?;
            }
            if !self.pruned {
                self.prune(objects, applied).await?;
            }
        }
        for object in &objects.api_services {
            let result = self.ensure(object, &mut applied.conflicts).await;
            applied.registered |= matches!(result, Ok(Done::Written));
            applied.note(&object.describe(), result.map(Done::wrote))?;
        }
        self.monitor(objects, applied).await;
        Ok(())
    }

    /// What is for others than our own users: whatever refuses it refuses nothing else.
    async fn monitor(&mut self, objects: &Objects, applied: &mut Applied) {
        for object in &objects.monitoring {
            let result = self.ensure(object, &mut applied.conflicts).await;
            applied.note_monitoring(object, result.map(Done::wrote));
        }
        for object in &objects.unmonitored {
            let result = self.remove(object).await;
            applied.note_monitoring(object, result);
        }
    }

    /// Writes one object unless it is as it shall be or not ours.
    async fn ensure(&mut self, object: &Object, conflicts: &mut Vec<Conflict>) -> Result<Done, kube::Error> {
        let api = cluster::objects(&self.client, &object.resource, object.namespace());
        let live = api.get_opt(object.name()).await?;
        let held_off = self.contests.holds_off(&object.describe(), Instant::now());
        if let Some(live) = &live {
            if !is_ours(object, live) && !object.adopts {
                conflicts.push(Conflict {
                    object: object.describe(),
                });
                return Ok(Done::Nothing);
            }
            // It cannot be brought back before it is gone. The watch tells when.
            if live.metadata.deletion_timestamp.is_some() {
                return Ok(Done::Nothing);
            }
            let taken_over = live
                .metadata
                .managed_fields
                .as_deref()
                .and_then(ownership::taken_over);
            if taken_over.is_none() && !self.asks_for_less(object) && self.is_as_desired(object, live) {
                self.contests.as_wanted(&object.describe(), Instant::now());
                return Ok(Done::Nothing);
            }
            if held_off {
                return Ok(Done::HeldOff);
            }
            if let Some(managed_fields) = taken_over {
                let patch = json!({"metadata": {
                    "uid": live.metadata.uid,
                    "resourceVersion": live.metadata.resource_version,
                    "managedFields": managed_fields,
                }});
                api.patch_metadata(object.name(), &PatchParams::default(), &Patch::Merge(patch))
                    .await?;
            }
        }
        if held_off {
            return Ok(Done::HeldOff);
        }
        let mut patch = object.object.clone();
        // With the UID, kube-apiserver refuses if the object that was looked at has been replaced by another.
        patch.metadata.uid = live.as_ref().and_then(|live| live.metadata.uid.clone());
        if live.as_ref().is_some_and(|live| !is_ours(object, live))
            && let Some(spec) = patch.data.get_mut("spec")
        {
            // It may say true, which kube-apiserver takes with no caBundle. The next apply leaves it out.
            spec["insecureSkipTLSVerify"] = json!(false);
        }
        let mut parameters = PatchParams::apply(names::MANAGED_BY);
        parameters.force = live.is_some();
        let written = match api.patch(object.name(), &parameters, &Patch::Apply(&patch)).await {
            Err(error) if live.is_some() && is_immutable(&error) => {
                tracing::info!(
                    object = object.describe(),
                    "made again: a field that cannot be changed was changed"
                );
                cluster::delete(&api, object.name(), patch.metadata.uid.take()).await?;
                parameters.force = false;
                api.patch(object.name(), &parameters, &Patch::Apply(&patch))
                    .await?
            }
            // The authorizer hears a moment later of a Role that was just made.
            Err(error) if live.is_none() && cluster::is_not_found(&error) && object.is_binding() => {
                tokio::time::sleep(ROLE_IS_KNOWN).await;
                api.patch(object.name(), &parameters, &Patch::Apply(&patch))
                    .await?
            }
            result => result?,
        };
        tracing::info!(
            object = object.describe(),
            "{}",
            if live.is_some() { "put right" } else { "created" }
        );
        let written = Written {
            asked: drift::digest(&value(&object.object), &Value::Null),
            kept: digest(&object.object, &written),
            data: data(&written),
        };
        let before = self.written.insert(object.describe(), written);
        let same = before.is_some_and(|before| before.asked == written.asked);
        // A certificate in place of one that was spoiled is another one, though nothing else was asked for.
        let spoiled = object.is_secret()
            && before.is_some_and(|before| live.as_ref().is_none_or(|live| data(live) != before.data));
        if same || spoiled {
            let by = live.as_ref().map_or_else(
                || "somebody who deletes it".to_owned(),
                |live| contest::opponent(live.metadata.managed_fields.as_deref()),
            );
            self.contests.repaired(&object.describe(), by, Instant::now());
            // Of the authority and of a new certificate it is told as of those, and of what is contested in the status.
            if same && !object.is_authority() && !self.contests.is_contested(&object.describe()) {
                self.repaired.push(Repair::of(object, live.as_ref()));
            }
        }
        Ok(Done::Written)
    }

    /// Whether the last write asked for something else, which may be to go.
    fn asks_for_less(&self, object: &Object) -> bool {
        let asked = drift::digest(&value(&object.object), &Value::Null);
        let written = self.written.get(&object.describe());
        written.is_some_and(|written| written.asked != asked)
    }

    fn is_as_desired(&self, object: &Object, live: &DynamicObject) -> bool {
        drift::holds(&value(&object.object), &value(live))
            || self
                .written
                .get(&object.describe())
                .is_some_and(|written| written.kept == digest(&object.object, live))
    }

    async fn remove(&mut self, object: &Object) -> Result<bool, kube::Error> {
        let api = cluster::objects(&self.client, &object.resource, object.namespace());
        let Some(live) = api.get_opt(object.name()).await? else {
            return Ok(false);
        };
        if !is_ours(object, &live) || live.metadata.deletion_timestamp.is_some() {
            return Ok(false);
        }
        self.written.remove(&object.describe());
        self.contests.forget(&object.describe());
        let deleted = cluster::delete(&api, object.name(), live.metadata.uid).await?;
        if deleted {
            tracing::info!(object = object.describe(), "deleted: it is not wanted now");
        }
        Ok(deleted)
    }

    /// Deletes objects of ours that an earlier version of the operator made and this one does not. `APIServices` are
    /// not among them: their names never change, and while no endpoint is ready those that are there stay.
    async fn prune(&mut self, objects: &Objects, applied: &mut Applied) -> Result<(), Stop> {
        let wanted: BTreeSet<_> = [&objects.base, &objects.untouched, &objects.monitoring]
            .into_iter()
            .flatten()
            .map(place)
            .collect();
        let errors = applied.errors.len();
        for kind in kinds::made(&self.namespace) {
            let keeps = |name: &str| wanted.contains(&(kind.resource.kind.as_str(), kind.namespace, name));
            let deleted = kind.delete(&self.client, keeps).await;
            if let (Err(error), false) = (&deleted, kind.everywhere) {
                let error = cluster::describe(error);
                applied
                    .monitoring_errors
                    .push(format!("a {} without use: {error}", kind.resource.kind));
                continue;
            }
            if let Ok(deleted) = &deleted {
                applied.writes += deleted.len() as u64;
            }
            applied.note(
                &format!("a {} without use", kind.resource.kind),
                deleted.map(|_| false),
            )?;
        }
        self.pruned = applied.errors.len() == errors;
        Ok(())
    }
}

/// Whether what is there under the name of `object` is ours.
fn is_ours(object: &Object, live: &DynamicObject) -> bool {
    desired::ours(&live.metadata) || registration::same_target(&object.object, live)
}

/// What tells an object from all others.
fn place(object: &Object) -> (&str, Option<&str>, &str) {
    (&object.resource.kind, object.namespace(), object.name())
}

impl Applied {
    fn note_monitoring(&mut self, object: &Object, result: Result<bool, kube::Error>) {
        match result {
            Ok(wrote) => self.writes += u64::from(wrote),
            Err(error) => {
                let error = cluster::describe(&error);
                self.monitoring_errors
                    .push(format!("{}: {error}", object.describe()));
            }
        }
    }

    fn note(&mut self, object: &str, result: Result<bool, kube::Error>) -> Result<(), Stop> {
        match result {
            Ok(wrote) => self.writes += u64::from(wrote),
            // Somebody else wrote in between: the watch has told, and the next turn looks again.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                tracing::info!(object, reason = status.message, "changed meanwhile");
            }
            Err(error) => {
                self.errors
                    .push(format!("{object}: {}", cluster::describe(&error)));
                if !cluster::is_refusal(&error) {
                    return Err(Stop);
                }
            }
        }
        Ok(())
    }
}

fn is_immutable(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422
        && (status.message.contains("field is immutable") || status.message.contains("cannot change roleRef")))
}

fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn digest(desired: &DynamicObject, live: &DynamicObject) -> u64 {
    drift::digest(&value(desired), &value(live))
}

/// Digest of all that is in a Secret.
fn data(live: &DynamicObject) -> u64 {
    drift::digest(live.data.get("data").unwrap_or(&Value::Null), &Value::Null)
}

#[cfg(test)]
mod tests;
