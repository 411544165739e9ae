//! `delete-stack`: deletes the stack and waits until it is gone. The chart runs it before the operator is removed, for
//! without an operator nobody would remove the registration.

use std::time::Duration;

use contract::names;
use kube::core::ApiResource;
use kube::{Client, ResourceExt as _};
use tokio::time::Instant;

use crate::api::MetricsStack;
use crate::cluster::{self, FINALIZER};

/// Pause between looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Why the stack is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// kube-apiserver said no, or nothing.
    #[error("failed to {action} MetricsStack {}: {}", names::STACK_NAME, cluster::describe(.source))]
    Call {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: kube::Error,
    },
    /// It was deleted, but somebody has not let go of it.
    #[error(
        "MetricsStack {} is still there after {} s, held by the finalizers {finalizers:?}. The operator removes \
         {FINALIZER} when everything of the stack is gone: see why it does not in its log. To go on without it, delete \
         the APIServices v1.metrics.k8s.io and v1beta1.metrics.k8s.io if they are its own, then run: kubectl patch \
         metricsstack {} --type=merge -p '{{\"metadata\":{{\"finalizers\":null}}}}'",
        names::STACK_NAME, timeout.as_secs(), names::STACK_NAME
    )]
    Timeout {
        /// How long it was waited for.
        timeout: Duration,
        /// What holds it.
        finalizers: Vec<String>,
    },
}

/// Deletes the stack and waits until it is gone. Nothing is to be done where there is none, or no such kind.
pub async fn delete_stack(client: &Client, timeout: Duration) -> Result<(), DeleteError> {
    let deadline = Instant::now() + timeout;
    let api = cluster::objects(client, &ApiResource::erase::<MetricsStack>(&()), None);
    let mut first: Option<String> = None;
    loop {
        let stack = api
            .get_metadata_opt(names::STACK_NAME)
            .await
            .map_err(|source| DeleteError::Call {
                action: "read",
                source,
            })?;
        let Some(stack) = stack else {
            tracing::info!("there is no MetricsStack");
            return Ok(());
        };
        let uid = stack.uid();
        if first.is_some() && first != uid {
            // The one that was deleted is gone; somebody has made another meanwhile, which is theirs to keep.
            return Ok(());
        }
        if first.is_none() {
            first.clone_from(&uid);
            cluster::delete(&api, names::STACK_NAME, uid)
                .await
                .map_err(|source| DeleteError::Call {
                    action: "delete",
                    source,
                })?;
            tracing::info!("waiting for the operator to remove what belongs to the MetricsStack");
        } else if Instant::now() >= deadline {
            return Err(DeleteError::Timeout {
                timeout,
                finalizers: stack.finalizers().to_vec(),
            });
        } else {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::Fake;

    const STACK: &str = "/apis/metricsstack.dev/v1alpha1/metricsstacks/default";

    #[tokio::test]
    async fn where_there_is_none_nothing_is_done() {
        let fake = Fake::default();
        delete_stack(&fake.client(), Duration::ZERO).await.unwrap();
        assert_eq!(fake.writes(), [""; 0]);
    }

    #[tokio::test]
    async fn a_stack_that_nobody_holds_is_gone_at_once() {
        let fake = Fake::default();
        fake.put(STACK, json!({"metadata": {"name": "default"}}));
        delete_stack(&fake.client(), Duration::ZERO).await.unwrap();
        assert_eq!(fake.writes(), [format!("DELETE {STACK}")]);
        assert!(fake.get(STACK).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_that_does_not_answer_is_the_error() {
        let fake = Fake::default();
        fake.put(
            STACK,
            json!({"metadata": {"name": "default", "finalizers": [FINALIZER]}}),
        );
        let error = delete_stack(&fake.client(), Duration::from_mins(2))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("still there after 120 s") && error.contains(FINALIZER),
            "{error}"
        );
        assert!(error.contains("kubectl patch metricsstack default"), "{error}");
        assert_eq!(fake.writes(), [format!("DELETE {STACK}")]);
    }
}
