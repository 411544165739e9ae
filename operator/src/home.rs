//! Whether the operator's namespace is there, and whether it ends. The operator ends with it, and what it leaves behind
//! elsewhere has to go first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use process::shutdown::CancellationToken;

/// What was seen of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is there.
    Present,
    /// It is being deleted.
    Ending,
    /// There is none of this name.
    Missing,
}

impl Presence {
    fn of(found: Option<&PartialObjectMeta<Namespace>>) -> Self {
        match found {
            None => Self::Missing,
            Some(namespace) if namespace.metadata.deletion_timestamp.is_some() => Self::Ending,
            Some(_) => Self::Present,
        }
    }
}

/// There never was such a namespace: its name is wrong.
#[derive(Debug, thiserror::Error)]
#[error(
    "--namespace (or the variable POD_NAMESPACE): there is no namespace {0:?} in this cluster; expected the namespace \
     that the operator is installed in. Nothing was changed. Correct the name (kubectl get namespaces), or create it \
     first"
)]
pub(crate) struct NoSuchNamespace(String);

/// The operator's namespace.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    name: String,
    seen: Arc<AtomicBool>,
    ends: CancellationToken,
}

impl Home {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            seen: Arc::default(),
            ends: CancellationToken::new(),
        }
    }

    /// Is cancelled when the namespace ends.
    pub(crate) fn ends(&self) -> &CancellationToken {
        &self.ends
    }

    /// Looks once, before anything is done. A namespace that is not there has not ended: cleaning up for it would take
    /// the registration away from the installation that a wrong name hides.
    pub(crate) async fn enter(&self, client: &Client) -> Result<(), NoSuchNamespace> {
        if self.look(client).await == Some(Presence::Missing) {
            return Err(NoSuchNamespace(self.name.clone()));
        }
        Ok(())
    }

    /// Looks, and takes note of what there is. Nothing if kube-apiserver does not tell.
    pub(crate) async fn look(&self, client: &Client) -> Option<Presence> {
        let api: Api<Namespace> = Api::all(client.clone());
        let found = api.get_metadata_opt(&self.name).await.ok()?;
        let presence = Presence::of(found.as_ref());
        self.note(presence);
        Some(presence)
    }

    fn note(&self, presence: Presence) {
        match presence {
            Presence::Present => self.seen.store(true, Ordering::Relaxed),
            Presence::Missing if !self.seen.load(Ordering::Relaxed) => {}
            Presence::Ending | Presence::Missing => {
                if !self.ends.is_cancelled() {
                    tracing::info!(namespace = self.name, "the operator's namespace is being deleted");
                }
                self.ends.cancel();
            }
        }
    }

    /// Watches until the namespace ends.
    pub(crate) async fn watch(self, client: Client) {
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(client);
        let mut states = std::pin::pin!(watch_object(api, &self.name).default_backoff());
        while !self.ends.is_cancelled()
            && let Some(state) = states.next().await
        {
            match state {
                Ok(found) => self.note(Presence::of(found.as_ref())),
                Err(error) => {
                    tracing::warn!(%error, "the watch of the operator's namespace broke off; it is started again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::{Fake, status};

    const NAMESPACE: &str = "/api/v1/namespaces/ns";

    fn there() -> Fake {
        let fake = Fake::default();
        fake.put(NAMESPACE, json!({"metadata": {"name": "ns"}}));
        fake
    }

    #[tokio::test]
    async fn a_namespace_that_never_was_is_an_error_and_no_end() {
        let (fake, home) = (Fake::default(), Home::new("typo"));
        let error = home.enter(&fake.client()).await.unwrap_err().to_string();
        for part in [
            "--namespace",
            "POD_NAMESPACE",
            "no namespace \"typo\"",
            "kubectl get namespaces",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!home.ends().is_cancelled());
    }

    #[tokio::test]
    async fn one_that_was_there_and_is_gone_has_ended() {
        let (fake, home) = (there(), Home::new("ns"));
        home.enter(&fake.client()).await.unwrap();
        assert!(!home.ends().is_cancelled());
        fake.remove(NAMESPACE);
        assert_eq!(home.look(&fake.client()).await, Some(Presence::Missing));
        assert!(home.ends().is_cancelled());
    }

    #[tokio::test]
    async fn one_that_is_being_deleted_ends_also_at_the_start() {
        let (fake, home) = (Fake::default(), Home::new("ns"));
        fake.put(
            NAMESPACE,
            json!({"metadata": {"name": "ns", "deletionTimestamp": "2026-11-24T00:00:00Z"}}),
        );
        home.enter(&fake.client()).await.unwrap();
        assert!(home.ends().is_cancelled());
    }

    #[tokio::test]
    async fn what_kube_apiserver_does_not_tell_is_no_end_then_nor_when_it_tells_that_there_is_none() {
        let (fake, home) = (Fake::default(), Home::new("ns"));
        fake.once(
            &format!("GET {NAMESPACE}"),
            500,
            status(500, "InternalError", "no"),
        );
        home.enter(&fake.client()).await.unwrap();
        assert_eq!(home.look(&fake.client()).await, Some(Presence::Missing));
        assert!(!home.ends().is_cancelled());
    }
}
