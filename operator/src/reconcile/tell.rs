//! What a turn tells: the status, and the events of what is new in it.

use jiff::Timestamp;
use serde_json::json;

use super::{ReconcileError, Reconciler, on_stack};
use crate::api::{MetricsStack, MetricsStackStatus};
use crate::apply::Applied;
use crate::diagnose::Finding;
use crate::observe::ObserveError;
use crate::plan::Plan;
use crate::{cluster, status};

impl Reconciler {
    /// Writes the status and publishes what is new in it, if anything is.
    pub(super) async fn tell(
        &self,
        stack: &MetricsStack,
        status: &MetricsStackStatus,
        findings: &[Finding],
    ) -> Result<(), ReconcileError> {
        let is_new = stack.status.as_ref() != Some(status);
        if is_new {
            // What nobody is told is not to be measured either: without the right to write it, the right to see may be
            // missing too.
            self.write(status).await.inspect_err(|_| self.metrics.forget())?;
        }
        self.metrics.show(status);
        if is_new {
            self.publisher.publish(stack, status, findings).await;
        }
        Ok(())
    }

    /// Publishes what was put right and which certificates were made. `put_back` is about the authority.
    pub(super) async fn tell_of_repairs(
        &self,
        stack: &MetricsStack,
        plan: &Plan,
        applied: &Applied,
        put_back: Option<String>,
    ) {
        let publisher = &self.publisher;
        publisher.repaired(stack, &applied.repaired).await;
        if applied.writes == 0 || !applied.certificates {
            return;
        }
        let put_back: Vec<_> = put_back.into_iter().collect();
        for certificate in put_back.iter().chain(&plan.renewed) {
            tracing::info!(certificate, "a certificate was made or put back");
        }
        for (reason, certificates) in [
            ("CertificateRestored", &put_back),
            ("CertificateRenewed", &plan.renewed),
        ] {
            publisher.certificates(stack, reason, certificates).await;
        }
    }

    pub(super) async fn tell_blind(
        &self,
        stack: &MetricsStack,
        error: &ObserveError,
    ) -> Result<(), ReconcileError> {
        let (previous, generation) = (stack.status.as_ref(), stack.metadata.generation);
        let (status, finding) = status::blind(previous, generation, error, Timestamp::now());
        self.tell(stack, &status, &[finding]).await
    }

    async fn write(&self, status: &MetricsStackStatus) -> Result<(), ReconcileError> {
        cluster::write_status(&self.client, &json!(status))
            .await
            .map_err(on_stack("write the status of"))
    }
}
