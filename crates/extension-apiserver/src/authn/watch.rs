//! The `ConfigMap` in which kube-apiserver publishes whom to trust, read at the start and then watched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;

use super::config::AuthenticationConfig;
use crate::review::{ReviewError, in_time};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// Tries to read it at the start, for a kube-apiserver that is just starting too.
const TRIES: u32 = 3;
/// Pause between them.
const PAUSE: Duration = Duration::from_secs(1);

/// What is published, and its number: a judgement holds for one generation.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// 0: nothing has been read yet.
    pub(crate) generation: u64,
    /// Whom to trust.
    pub(crate) config: AuthenticationConfig,
}

/// The `ConfigMap` cannot be read or used at the start.
#[derive(Debug, thiserror::Error)]
#[error("failed to read ConfigMap {NAMESPACE}/{NAME}, which says whom to trust: {found}. {remedy}")]
pub struct LookupError {
    found: String,
    remedy: &'static str,
}

impl LookupError {
    fn unread(error: &ReviewError) -> Self {
        let remedy = match error {
            ReviewError::Refused { code: 401 | 403, .. } => {
                "Allow it: kubectl create rolebinding --namespace kube-system ROLEBINDING \
                 --role=extension-apiserver-authentication-reader --serviceaccount=NAMESPACE:SERVICEACCOUNT"
            }
            ReviewError::Refused { code: 404, .. } => {
                "kube-apiserver writes it within seconds of its start: see why it does not, or whether this is it"
            }
            _ => "Check that kube-apiserver can be reached from here and is healthy",
        };
        Self {
            found: error.to_string(),
            remedy,
        }
    }

    fn unusable(found: String) -> Self {
        Self {
            found,
            remedy: "kube-apiserver writes it from its --client-ca-file and --requestheader-* flags: mend those",
        }
    }
}

/// Follows the `ConfigMap`.
pub(crate) struct ConfigWatch {
    api: Api<ConfigMap>,
    /// The data of the last one that was not unusable, and of the last one that was.
    taken: Option<BTreeMap<String, String>>,
    refused: Option<BTreeMap<String, String>>,
    published: watch::Sender<Arc<Published>>,
}

impl ConfigWatch {
    /// Nothing is read yet.
    pub(crate) fn new(client: kube::Client) -> Self {
        Self {
            api: Api::namespaced(client, NAMESPACE),
            taken: None,
            refused: None,
            published: watch::Sender::default(),
        }
    }

    /// Where to see what is published.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Reads it once, so that a server that may not read it ends at once and says so.
    pub(crate) async fn load(&mut self) -> Result<(), LookupError> {
        for last in 1..=TRIES {
            match in_time(self.api.get(NAME)).await {
                Ok(config_map) => {
                    return self.publish(config_map).map_err(LookupError::unusable);
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

    /// Watches it for ever.
    pub(crate) async fn follow(mut self) {
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
                    let _ = self.publish(config_map);
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

    /// Makes a new generation of what is new and usable. What cannot be used is logged once, and the last one stays.
    fn publish(&mut self, config_map: ConfigMap) -> Result<(), String> {
        let data = config_map.data.unwrap_or_default();
        if self.taken.as_ref() == Some(&data) {
            return Ok(());
        }
        match AuthenticationConfig::parse(&data) {
            Ok(config) => {
                log(&config);
                self.published.send_modify(|published| {
                    let generation = published.generation + 1;
                    *published = Arc::new(Published { generation, config });
                });
                self.taken = Some(data);
                self.refused = None;
                Ok(())
            }
            Err(error) => {
                if self.refused.as_ref() != Some(&data) {
                    tracing::error!(%error, "ConfigMap {NAMESPACE}/{NAME} cannot be used, what it last said stays in \
                         force");
                    self.refused = Some(data);
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
