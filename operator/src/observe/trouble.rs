//! A closer look where something fails already: what waits for it, and what it waits for. Nobody asks for this where all
//! is well.

use std::collections::BTreeSet;

use contract::names::METRICS_GROUP;
use contract::report::ErrorClass;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client};

use super::{Observed, Read};
use crate::{cluster, diagnose, kubelet_certificates};

/// Objects asked for at once.
const PAGE: u32 = 200;

/// Looks for what the failures seen so far may have to do with.
pub(super) async fn look(client: &Client, observed: &mut Observed) {
    let unavailable = |service| diagnose::available(service).0 == "False";
    if matches!(observed.read, Read::Failed { .. }) || observed.api_services.iter().any(unavailable) {
        match stuck_namespaces(client).await {
            Ok(names) => observed.stuck_namespaces = names,
            Err(error) => not_seen("namespaces that cannot be deleted", &error),
        }
    }
    if observed.replicas.iter().any(|replica| {
        let nodes = replica.report.iter().flat_map(|report| &report.nodes);
        let mut classes = nodes.filter_map(|node| Some(node.error.as_ref()?.class));
        classes.any(awaits_certificate)
    }) {
        match waiting_kubelets(client).await {
            Ok(nodes) => observed.waiting_kubelets = nodes,
            Err(error) => not_seen("requests of kubelets for certificates", &error),
        }
    }
}

/// Whether a kubelet that waits for its serving certificate fails in this way.
pub(crate) fn awaits_certificate(class: ErrorClass) -> bool {
    matches!(
        class,
        ErrorClass::TlsHandshake | ErrorClass::TlsExpired | ErrorClass::TlsUnknownAuthority
    )
}

/// Namespaces that are being deleted and wait for the group's discovery.
async fn stuck_namespaces(client: &Client) -> Result<Vec<String>, kube::Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let terminating = ListParams::default()
        .fields("status.phase=Terminating")
        .limit(PAGE);
    let list = api.list(&terminating).await?;
    Ok(list
        .iter()
        .filter(|namespace| is_stuck(namespace))
        .map(kube::ResourceExt::name_any)
        .collect())
}

fn is_stuck(namespace: &Namespace) -> bool {
    let conditions = namespace
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| {
        let message = condition.message.as_deref().unwrap_or_default();
        condition.type_ == "NamespaceDeletionDiscoveryFailure"
            && condition.status == "True"
            && message.contains(METRICS_GROUP)
    })
}

/// Nodes whose kubelets have asked for serving certificates, where nobody has decided.
async fn waiting_kubelets(client: &Client) -> Result<BTreeSet<String>, kube::Error> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let of_kubelets = format!("spec.signerName={}", kubelet_certificates::SIGNER);
    let mut page = ListParams::default().fields(&of_kubelets).limit(PAGE);
    let mut nodes = BTreeSet::new();
    loop {
        let list = api.list(&page).await?;
        let pending = list
            .items
            .iter()
            .filter(|request| kubelet_certificates::is_pending(request));
        nodes.extend(
            pending
                .filter_map(kubelet_certificates::node_of)
                .map(str::to_owned),
        );
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() => page.continue_token = Some(token),
            _ => return Ok(nodes),
        }
    }
}

fn not_seen(what: &str, error: &kube::Error) {
    tracing::warn!(error = cluster::describe(error), "failed to look for {what}");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::Fake;
    use crate::fixtures::{node, replica};
    use contract::report::{NodeError, TlsState};

    fn namespace(fake: &Fake, name: &str, message: &str) {
        let conditions = json!([
            {"type": "NamespaceDeletionContentFailure", "status": "False", "message": ""},
            {"type": "NamespaceDeletionDiscoveryFailure", "status": "True", "message": message},
        ]);
        let object =
            json!({"metadata": {"name": name}, "status": {"phase": "Terminating", "conditions": conditions}});
        fake.put(&format!("/api/v1/namespaces/{name}"), object);
    }

    fn request(fake: &Fake, name: &str, status: &Value) {
        let spec =
            json!({"signerName": kubelet_certificates::SIGNER, "username": "system:node:a", "request": ""});
        let object = json!({"metadata": {"name": name}, "spec": spec, "status": status});
        fake.put(
            &format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}"),
            object,
        );
    }

    #[tokio::test]
    async fn nobody_is_asked_where_all_is_well() {
        let fake = Fake::default();
        let mut observed = Observed {
            read: Read::Succeeded,
            replicas: vec![replica(vec![node("a", TlsState::Verified, None)])],
            ..Observed::default()
        };
        look(&fake.client(), &mut observed).await;
        assert_eq!(fake.calls(), [""; 0]);
    }

    #[tokio::test]
    async fn what_waits_and_what_is_waited_for_is_found() {
        let fake = Fake::default();
        namespace(
            &fake,
            "stuck",
            "Discovery failed for some groups, 1 failing: stale GroupVersion discovery: metrics.k8s.io/v1beta1",
        );
        namespace(
            &fake,
            "of-another",
            "stale GroupVersion discovery: other.example/v1",
        );
        request(&fake, "csr-1", &json!({}));
        // The same kubelet once more.
        request(&fake, "csr-3", &json!({}));
        request(
            &fake,
            "csr-2",
            &json!({"conditions": [{"type": "Approved", "status": "True"}]}),
        );
        let error = NodeError {
            class: ErrorClass::TlsHandshake,
            message: "internal error".to_owned(),
        };
        let mut observed = Observed {
            read: Read::Failed {
                version: "v1".to_owned(),
                reason: "no".to_owned(),
            },
            replicas: vec![replica(vec![node("a", TlsState::Refused, Some(error))])],
            ..Observed::default()
        };
        look(&fake.client(), &mut observed).await;
        assert_eq!(observed.stuck_namespaces, ["stuck"]);
        assert_eq!(observed.waiting_kubelets, ["a".to_owned()].into());
        // One that cannot be looked for is no reason to fail.
        fake.always(
            "GET /api/v1/namespaces",
            403,
            crate::fake::status(403, "Forbidden", "no"),
        );
        observed.stuck_namespaces.clear();
        look(&fake.client(), &mut observed).await;
        assert_eq!(observed.stuck_namespaces, [""; 0]);
    }
}
