//! The `ConfigMap` in which kube-apiserver publishes whom to trust, read at the start and then watched.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;
use tokio::time::Instant;

use super::config::AuthenticationConfig;
use super::files;
use crate::options::Authorities;
use crate::review::{ReviewError, in_time};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// Tries to read it at the start, for a kube-apiserver that is just starting too.
const TRIES: u32 = 3;
/// Pause between them.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is read beside the watch.
const REREAD: Duration = Duration::from_mins(1);
/// Least time between two readings for clients' sake, and the time that one may take.
const BETWEEN_REFRESHES: Duration = Duration::from_secs(1);
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// What is published, and its number: a judgement holds for one generation.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// 0: nothing has been read yet.
    pub(crate) generation: u64,
    /// Whom to trust.
    pub(crate) config: AuthenticationConfig,
}

/// Whom to trust cannot be read, or not be used, at the start.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {place}: {found}. {remedy}")]
pub struct LookupError {
    place: String,
    found: String,
    remedy: &'static str,
}

impl LookupError {
    fn unread(error: &ReviewError) -> Self {
        let remedy = match error {
            ReviewError::Refused { code: 401, .. } => {
                "Nobody is known by what was shown: see whether the token or certificate of the kubeconfig or the \
                 ServiceAccount is of this cluster, and not expired"
            }
            ReviewError::Refused { code: 403, .. } => {
                "Allow it: kubectl create rolebinding --namespace kube-system ROLEBINDING \
                 --role=extension-apiserver-authentication-reader --serviceaccount=NAMESPACE:SERVICEACCOUNT"
            }
            ReviewError::Refused { code: 404, .. } => {
                "kube-apiserver writes it within seconds of its start: see why it does not, or whether this is it"
            }
            _ => "Check that kube-apiserver can be reached from here and is healthy",
        };
        Self {
            place: format!("ConfigMap {NAMESPACE}/{NAME}, which says whom to trust"),
            found: error.to_string(),
            remedy,
        }
    }

    fn unusable_files(found: String) -> Self {
        Self {
            place: "the files that say whom to trust".to_owned(),
            found,
            remedy: "Nothing is read from the cluster: mend the files that are to be trusted instead",
        }
    }

    fn unusable(found: String) -> Self {
        Self {
            place: format!("ConfigMap {NAMESPACE}/{NAME}, which says whom to trust"),
            found,
            remedy: "kube-apiserver writes it from its --client-ca-file and --requestheader-* flags: mend those",
        }
    }
}

/// The `ConfigMap`, read and followed.
pub(crate) struct Config {
    api: Api<ConfigMap>,
    authorities: Authorities,
    seen: Mutex<Seen>,
    published: watch::Sender<Arc<Published>>,
    /// When it was last read for a client's sake.
    refreshed: tokio::sync::Mutex<Option<Instant>>,
}

/// The data of the last one, before and after what is told otherwise was put in its place; and of the last one that was
/// unusable.
#[derive(Default)]
struct Seen {
    published: BTreeMap<String, String>,
    taken: Option<BTreeMap<String, String>>,
    refused: Option<BTreeMap<String, String>>,
}

impl Config {
    /// Nothing is read yet.
    pub(crate) fn new(client: kube::Client, authorities: Authorities) -> Arc<Self> {
        Arc::new(Self {
            api: Api::namespaced(client, NAMESPACE),
            authorities,
            seen: Mutex::default(),
            published: watch::Sender::default(),
            refreshed: tokio::sync::Mutex::default(),
        })
    }

    /// What is published now.
    pub(crate) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }

    /// Where to see what is published.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Reads it once, so that a server that may not read it ends at once and says so.
    pub(crate) async fn load(&self) -> Result<(), LookupError> {
        if self.authorities.skip_lookup {
            return self.publish(BTreeMap::new()).map_err(LookupError::unusable_files);
        }
        for last in 1..=TRIES {
            match in_time(self.api.get(NAME)).await {
                Ok(config_map) => {
                    let data = config_map.data.unwrap_or_default();
                    return self.publish(data).map_err(LookupError::unusable);
                }
                Err(error) if last == TRIES || is_final(&error) => {
                    return Err(LookupError::unread(&error));
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to read ConfigMap {NAMESPACE}/{NAME}, trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        Ok(())
    }

    /// Goes on without having read it: what files say counts all the same.
    pub(crate) fn go_without(&self) {
        if self.authorities != Authorities::default() {
            let _ = self.publish(BTreeMap::new());
        }
    }

    /// Watches it for ever.
    pub(crate) async fn follow(self: Arc<Self>) {
        if self.authorities.skip_lookup {
            return std::future::pending().await;
        }
        // The built-in role grants list and watch for this one name only.
        let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let mut events = watcher(self.api.clone(), config).default_backoff().boxed();
        let mut listed = false;
        loop {
            match events.try_next().await {
                Ok(Some(Event::Init)) => listed = false,
                Ok(Some(Event::Apply(config_map) | Event::InitApply(config_map))) => {
                    listed = true;
                    // Refused ones have been logged.
                    let _ = self.publish(config_map.data.unwrap_or_default());
                }
                Ok(Some(Event::InitDone)) if listed => {}
                Ok(Some(Event::InitDone | Event::Delete(_))) => tracing::warn!(
                    "ConfigMap {NAMESPACE}/{NAME} does not exist: what it last said stays in force until \
                     kube-apiserver writes it again"
                ),
                Ok(None) => return,
                Err(error) => {
                    let error = crate::error_chain(&error);
                    tracing::warn!(%error, "failed to watch ConfigMap {NAMESPACE}/{NAME}, trying again");
                }
            }
        }
    }

    /// Reads it again and again, for ever: a watch may be dead for minutes before that is noticed, and so long an
    /// authority that was removed would be trusted.
    pub(crate) async fn reread(self: Arc<Self>) {
        loop {
            tokio::time::sleep(REREAD).await;
            self.read().await;
        }
    }

    /// Reads it for a client whose certificate was refused, unless that was done just now: its authority may be newer
    /// than what the watch has brought.
    pub(crate) async fn refresh(&self) {
        // Those who come meanwhile wait here for what is read.
        let mut refreshed = self.refreshed.lock().await;
        if refreshed.is_some_and(|at| at.elapsed() < BETWEEN_REFRESHES) {
            return;
        }
        let _ = tokio::time::timeout(REFRESH_TIMEOUT, self.read()).await;
        *refreshed = Some(Instant::now());
    }

    /// Reads it once. Failures are not told: the watch tells its own.
    async fn read(&self) {
        if self.authorities.skip_lookup {
            let _ = self.publish(BTreeMap::new());
            return;
        }
        let before = self.published.borrow().generation;
        match in_time(self.api.get(NAME)).await {
            // What the watch has brought meanwhile may be newer.
            Ok(config_map) if self.published.borrow().generation == before => {
                let _ = self.publish(config_map.data.unwrap_or_default());
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "failed to read ConfigMap {NAMESPACE}/{NAME}");
                self.reread_files();
            }
        }
    }

    /// Reads the files again beside what was published last.
    fn reread_files(&self) {
        if self.authorities != Authorities::default() && self.published.borrow().generation > 0 {
            let published = {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.published.clone()
            };
            let _ = self.publish(published);
        }
    }

    /// Makes a new generation of what is new and usable. What cannot be used is logged once, and the last one stays.
    fn publish(&self, published: BTreeMap<String, String>) -> Result<(), String> {
        let data = files::put_in(published.clone(), &self.authorities).inspect_err(|error| {
            tracing::error!(
                error,
                "cannot tell whom to trust, what was last read stays in force"
            );
        })?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.published = published;
        if seen.taken.as_ref() == Some(&data) {
            return Ok(());
        }
        match AuthenticationConfig::parse(&data) {
            Ok(config) => {
                log(&config);
                self.published.send_modify(|published| {
                    let generation = published.generation + 1;
                    *published = Arc::new(Published { generation, config });
                });
                seen.taken = Some(data);
                seen.refused = None;
                Ok(())
            }
            Err(error) => {
                if seen.refused.as_ref() != Some(&data) {
                    tracing::error!(%error, "ConfigMap {NAMESPACE}/{NAME} cannot be used, what it last said stays in \
                         force");
                    seen.refused = Some(data);
                }
                Err(error.to_string())
            }
        }
    }
}

fn log(config: &AuthenticationConfig) {
    if let Some(proxy) = &config.front_proxy {
        let client_certificates = config.client_ca.is_some();
        tracing::info!(allowed_names = ?proxy.allowed_names, client_certificates, "read whom to trust");
    } else {
        tracing::warn!(
            "ConfigMap {NAMESPACE}/{NAME} names no authority of a front proxy: requests through kube-apiserver will \
             be refused until kube-apiserver runs with --requestheader-client-ca-file"
        );
    }
}

/// Whether trying again soon is of no use.
fn is_final(error: &ReviewError) -> bool {
    matches!(error, ReviewError::Refused { code, .. } if (400..500).contains(code) && *code != 429)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::certificates::Authority;
    use crate::tests::cluster::Cluster;
    use crate::tests::published;

    #[tokio::test(start_paused = true)]
    async fn a_dead_watch_costs_a_minute_at_most() {
        let cluster = Cluster::new(Ok(published(None, Some(&Authority::new("first")))));
        cluster.deafen();
        let config = Config::new(cluster.client(), Authorities::default());
        config.load().await.unwrap();
        let mut generations = config.subscribe();
        generations.mark_unchanged();
        tokio::spawn(Arc::clone(&config).follow());
        tokio::spawn(Arc::clone(&config).reread());
        let begun = Instant::now();
        for _ in 0..3 {
            cluster.publish(Ok(published(None, Some(&Authority::new("next")))));
            generations.changed().await.unwrap();
        }
        // The list that a watch begins with brought the first.
        assert_eq!(begun.elapsed(), REREAD * 2);
        assert_eq!(config.published().generation, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_read_for_clients_once_a_second_at_most() {
        let cluster = Cluster::new(Ok(published(None, Some(&Authority::new("first")))));
        let config = Config::new(cluster.client(), Authorities::default());
        config.refresh().await;
        assert_eq!(config.published().generation, 1);
        cluster.publish(Ok(published(None, Some(&Authority::new("next")))));
        config.refresh().await;
        assert_eq!(config.published().generation, 1, "it was read just now");
        tokio::time::advance(BETWEEN_REFRESHES).await;
        config.refresh().await;
        assert_eq!(config.published().generation, 2);
    }
}
