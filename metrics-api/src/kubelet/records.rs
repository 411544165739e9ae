//! The trust records of mode `Auto`, in sharded ConfigMaps. Every write is made under the `resourceVersion` that
//! was judged (or creates the ConfigMap), so that two replicas cannot record different keys for one Node.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Mutex as StdMutex, PoisonError},
    time::Duration,
};

use contract::{
    names::{MANAGED_BY_LABEL, METRICS_API, NAME_LABEL, TRUST_LABEL},
    report::{ErrorClass, NodeError},
    trust::{MAX_RECORDS, TrustRecord, config_map_name, config_map_names},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use tokio::{sync::Mutex, time::Instant};

use super::{
    tls::Presented,
    trust::{Decision, decide, refusal},
};

/// Longest time for a record to be read and, if need be, written. Shorter than a kubelet's request timeout, so that
/// the error names what was slow.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a write that lost against another replica's is tried again.
const TRIES: usize = 5;

/// All records, read when they are needed.
pub struct Records {
    api: Api<ConfigMap>,
    shards: HashMap<String, Shard>,
}

#[derive(Default)]
struct Shard {
    /// What was read last. Held while the ConfigMap is read or written, so that there is one of either at a time.
    known: Mutex<Option<Known>>,
    /// What others wait to have recorded: one write takes all.
    waiting: StdMutex<HashMap<String, Presented>>,
}

/// A ConfigMap, as read.
#[derive(Clone, Debug)]
struct Known {
    /// `None` while there is no such ConfigMap.
    resource_version: Option<String>,
    data: BTreeMap<String, String>,
    read: Instant,
}

/// Why a record could not be used.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error("failed to {verb} it: {}", reason(source))]
    Api {
        verb: &'static str,
        source: Box<kube::Error>,
    },
    #[error("the entry {key} is not understood: {source}")]
    Invalid {
        key: String,
        source: contract::trust::InvalidTrustRecord,
    },
    #[error("it is none of the ConfigMaps that hold records")]
    NoShard,
    #[error("it holds {MAX_RECORDS} records, which is the limit")]
    Full,
    #[error("it changed {TRIES} times while it was being written")]
    Contended,
    #[error("kube-apiserver did not answer within {} s", PATIENCE.as_secs())]
    Slow,
}

/// An API error in few words: kube's own text repeats the whole chain.
fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.message),
        other => other.to_string(),
    }
}

impl Records {
    /// Records in the namespace of `api`.
    #[must_use]
    pub fn new(api: Api<ConfigMap>) -> Self {
        let shards = config_map_names().map(|name| (name, Shard::default())).collect();
        Self { api, shards }
    }

    /// Judges what a Node's kubelet presented by its record, which may have been read up to `max_age` ago, and
    /// records it where that is called for. A refusal is never based on a record from memory.
    pub async fn settle(&self, uid: &str, presented: &Presented, max_age: Duration) -> Result<(), NodeError> {
        let name = config_map_name(uid);
        let settled = async {
            let shard = self.shards.get(&name).ok_or(RecordError::NoShard)?;
            self.settle_in(shard, &name, uid, presented, max_age).await
        };
        let settled = tokio::time::timeout(PATIENCE, settled).await;
        match settled.unwrap_or(Err(RecordError::Slow)) {
            Ok(None) => Ok(()),
            Ok(Some(class)) => Err(refusal(class, uid, &name)),
            // What chains is trusted for what it is; the record is tried again with the next scrape.
            Err(error) if *presented == Presented::Verified => {
                tracing::debug!(config_map = name, %error, "a verified kubelet could not be recorded as such");
                Ok(())
            }
            Err(error) => {
                let class = ErrorClass::TlsRecordUnavailable;
                let message =
                    format!("the record of the kubelet's key in ConfigMap {name} cannot be used: {error}");
                Err(NodeError { class, message })
            }
        }
    }

    async fn settle_in(
        &self,
        shard: &Shard,
        name: &str,
        uid: &str,
        presented: &Presented,
        max_age: Duration,
    ) -> Result<Option<ErrorClass>, RecordError> {
        let _waiting = Waiting::new(shard, uid, presented);
        let mut slot = shard.known.lock().await;
        // What others have waited for is written with ours, so a later one finds its own in memory.
        let mut fresh_enough = max_age;
        for _ in 0..TRIES {
            // Taken out: whoever is cancelled while writing leaves nothing behind that may be out of date.
            let still_good = |known: &Known| {
                // A record that says `verified` never changes: an administrator may only remove it, which would be
                // written anew for what chains.
                let verified = *presented == Presented::Verified
                    && matches!(known.record(uid), Ok(Some(TrustRecord::Verified)));
                verified || known.read.elapsed() <= fresh_enough
            };
            let known = match slot.take().filter(still_good) {
                Some(known) => known,
                None => self.read(name).await?,
            };
            match decide(presented, known.record(uid)?.as_ref()) {
                Decision::Trust => {
                    *slot = Some(known);
                    return Ok(None);
                }
                Decision::Refuse(class) => {
                    let from_memory = fresh_enough > Duration::ZERO;
                    *slot = Some(known);
                    if !from_memory {
                        return Ok(Some(class));
                    }
                }
                Decision::Record(_) => {
                    let data = with_waiting(&known, &shard.waiting());
                    if !data.contains_key(uid) {
                        *slot = Some(known);
                        return Err(RecordError::Full);
                    }
                    // After a conflict the next turn reads again and judges anew.
                    *slot = self.write(name, known.resource_version, data).await?;
                    if slot.is_some() {
                        fresh_enough = Duration::MAX;
                        continue;
                    }
                }
            }
            fresh_enough = Duration::ZERO;
        }
        Err(RecordError::Contended)
    }

    async fn read(&self, name: &str) -> Result<Known, RecordError> {
        let read = Instant::now();
        match self.api.get_opt(name).await {
            Ok(Some(found)) => Ok(Known {
                resource_version: found.metadata.resource_version,
                data: found.data.unwrap_or_default(),
                read,
            }),
            Ok(None) => Ok(Known {
                resource_version: None,
                data: BTreeMap::new(),
                read,
            }),
            Err(source) => Err(RecordError::Api {
                verb: "read",
                source: Box::new(source),
            }),
        }
    }

    /// `None` when somebody else was quicker.
    async fn write(
        &self,
        name: &str,
        resource_version: Option<String>,
        data: BTreeMap<String, String>,
    ) -> Result<Option<Known>, RecordError> {
        let object = config_map(name, resource_version.clone(), data);
        let params = PostParams::default();
        let written = match resource_version {
            None => self.api.create(&params, &object).await,
            Some(_) => self.api.replace(name, &params, &object).await,
        };
        match written {
            Ok(written) => Ok(Some(Known {
                resource_version: written.metadata.resource_version,
                data: written.data.unwrap_or_default(),
                read: Instant::now(),
            })),
            // 409 is a conflict or "exists already"; 404 that it was deleted since it was read.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(source) => Err(RecordError::Api {
                verb: "write",
                source: Box::new(source),
            }),
        }
    }

    /// Removes the records of Nodes that are gone. `living` lists the UIDs of all Nodes and is asked after the
    /// records were read, so that a Node that is created meanwhile keeps its own. Returns how many were removed.
    pub async fn prune<F, E>(&self, living: impl FnOnce() -> F) -> Result<usize, PruneError<E>>
    where
        F: Future<Output = Result<HashSet<String>, E>>,
    {
        let mut known = Vec::new();
        for name in self.shards.keys() {
            let read = self
                .read(name)
                .await
                .map_err(|error| PruneError::Records(name.clone(), error.to_string()))?;
            if !read.data.is_empty() {
                known.push((name, read));
            }
        }
        if known.is_empty() {
            return Ok(0);
        }
        let living = living().await.map_err(PruneError::Nodes)?;
        let mut removed = 0;
        for (name, known) in known {
            let before = known.data.len();
            let data: BTreeMap<_, _> = known
                .data
                .into_iter()
                .filter(|(uid, _)| living.contains(uid))
                .collect();
            let gone = before - data.len();
            if gone == 0 {
                continue;
            }
            // Somebody else's write means that this shard waits for the next turn.
            let written = self.write(name, known.resource_version, data).await;
            if written
                .map_err(|error| PruneError::Records(name.clone(), error.to_string()))?
                .is_some()
            {
                removed += gone;
            }
            if let Some(shard) = self.shards.get(name) {
                *shard.known.lock().await = None;
            }
        }
        Ok(removed)
    }
}

/// Why records were not pruned.
#[derive(Debug, thiserror::Error)]
pub enum PruneError<E> {
    /// A ConfigMap cannot be read or written.
    #[error("ConfigMap {0}: {1}")]
    Records(String, String),
    /// The Nodes cannot be listed.
    #[error("failed to list all Nodes")]
    Nodes(#[source] E),
}

impl Known {
    fn record(&self, uid: &str) -> Result<Option<TrustRecord>, RecordError> {
        let parsed = self.data.get(uid).map(|text| text.parse()).transpose();
        parsed.map_err(|source| RecordError::Invalid {
            key: uid.to_owned(),
            source,
        })
    }
}

impl Shard {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, Presented>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for a record. Whoever gives up waits no longer: what is recorded is only ever what a live
/// connection shows.
struct Waiting<'a> {
    shard: &'a Shard,
    uid: &'a str,
}

impl<'a> Waiting<'a> {
    fn new(shard: &'a Shard, uid: &'a str, presented: &Presented) -> Self {
        shard.waiting().insert(uid.to_owned(), presented.clone());
        Self { shard, uid }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shard.waiting().remove(self.uid);
    }
}

/// The data with a record for everyone who waits for one, as far as there is room.
fn with_waiting(known: &Known, waiting: &HashMap<String, Presented>) -> BTreeMap<String, String> {
    let mut data = known.data.clone();
    for (uid, presented) in waiting {
        let Ok(record) = known.record(uid) else { continue };
        if let Decision::Record(record) = decide(presented, record.as_ref())
            && (data.len() < MAX_RECORDS || data.contains_key(uid))
        {
            data.insert(uid.clone(), record.to_string());
        }
    }
    data
}

fn config_map(name: &str, resource_version: Option<String>, data: BTreeMap<String, String>) -> ConfigMap {
    let labels = [
        (MANAGED_BY_LABEL, METRICS_API),
        (NAME_LABEL, METRICS_API),
        (TRUST_LABEL, "true"),
    ];
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            resource_version,
            labels: Some(
                labels
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}
