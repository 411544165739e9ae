//! What it means when kubelets fail in a way, and what to do.

use contract::report::ErrorClass;

/// What the table says about them.
#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn entry(class: ErrorClass) -> (&'static str, &'static str) {
    match class {
        ErrorClass::NoAddress => (
            "The Nodes have no address of the wanted types.",
            "Add a type that they have to spec.kubelet.addressTypes (kubectl get node -o wide).",
        ),
        ErrorClass::NameNotResolved => (
            "The cluster's DNS does not know the Nodes by the names that are dialled, or does not answer.",
            "Put InternalIP first in spec.kubelet.addressTypes, as it is by default, if the Nodes have such addresses \
             (kubectl get node -o wide); or have the cluster's DNS know their names. Where it did not answer, or the name \
             is kube-apiserver's, look at the DNS itself (kubectl get pods --namespace kube-system).",
        ),
        ErrorClass::Unreachable => (
            "No connection to the kubelets.",
            "Check that they run, and that the nodes' port 10250 is open to metrics-api's Pods.",
        ),
        ErrorClass::Timeout => (
            "The kubelets do not answer in time.",
            "Check the nodes' load, and firewalls that drop packets to port 10250; a Pod network that overlaps the \
             nodes' network shows like this too.",
        ),
        ErrorClass::TlsUnknownAuthority => (
            "x509: certificate signed by unknown authority. The kubelets' certificates do not chain to the authorities \
             in use; kubeadm's kubelets sign their own unless told otherwise.",
            "One of three: set spec.kubelet.tls.mode to Auto, which pins each kubelet's key at first use; or set \
             serverTLSBootstrap: true in the kubelets' configuration, restart them and approve their requests \
             (kubectl get csr; kubectl certificate approve NAME); or name their authority in \
             spec.kubelet.tls.caBundle.",
        ),
        ErrorClass::TlsNameMismatch => (
            "x509: the kubelets' certificates are valid for other names or addresses than the one dialled.",
            "Put a type of address that the certificates name first in spec.kubelet.addressTypes, or have the kubelets \
             request new certificates.",
        ),
        ErrorClass::TlsExpired => (
            "x509: the kubelets' certificates have expired or are not yet valid.",
            "Check the clocks of the nodes; with serverTLSBootstrap approve the pending requests (kubectl get csr).",
        ),
        ErrorClass::TlsInvalid => (
            "x509: the kubelets' certificates are not fit for a server.",
            "Have the kubelets request new ones (serverTLSBootstrap: true), with the usage server auth.",
        ),
        ErrorClass::TlsKeyChanged => (
            "The kubelets show another public key than the one pinned at first use: their certificates were made anew, \
             or something else answers in their place.",
            "If you know why, forget the old key: remove the entry with the Node's UID from the ConfigMaps with the \
             label metricsstack.dev/kubelet-trust=true in the operator's namespace.",
        ),
        ErrorClass::TlsDowngrade => (
            "The kubelets were verified by the cluster's CA before and now show certificates that do not chain to it.",
            "Let them request certificates again (serverTLSBootstrap: true). If the change is meant, remove the entry \
             with the Node's UID from the ConfigMaps with the label metricsstack.dev/kubelet-trust=true in the \
             operator's namespace.",
        ),
        ErrorClass::TlsRecordUnavailable => (
            "The record of the kubelets' keys could not be read or written, so they were not trusted.",
            "Check the ConfigMaps with the label metricsstack.dev/kubelet-trust=true in the operator's namespace; a \
             broken entry may be removed.",
        ),
        ErrorClass::TlsHandshake => (
            "The TLS handshake fails.",
            "With serverTLSBootstrap this means that a kubelet has no certificate yet: approve the pending requests \
             (kubectl get csr; kubectl certificate approve NAME).",
        ),
        ErrorClass::TokenUnavailable => (
            "metrics-api has no token to show to kubelets.",
            "It mends itself when the ServiceAccount metrics-api-kubelet and the Role metrics-api are back; see \
             metrics-api's log if it does not.",
        ),
        ErrorClass::Unauthorized => (
            "The kubelets answer 401: they do not check ServiceAccount tokens.",
            "Set authentication.webhook.enabled: true and authorization.mode: Webhook in the kubelets' configuration.",
        ),
        ErrorClass::Forbidden => (
            "The kubelets answer 403: the ServiceAccount metrics-api-kubelet may not get nodes/metrics.",
            "The operator keeps the ClusterRole metricsstack:metrics-api-kubelet; look for an authorizer besides RBAC.",
        ),
        ErrorClass::SummaryForbidden => (
            "The kubelets have no /metrics/resource, and answer 403 for /stats/summary, which stands in for it.",
            "Let the ServiceAccount metrics-api-kubelet get nodes/stats, as the ClusterRole \
             metricsstack:metrics-api-kubelet does; look for an authorizer besides RBAC.",
        ),
        ErrorClass::NotFound => (
            "The kubelets answer 404: they have no /metrics/resource.",
            "Look for a proxy in front of port 10250, or upgrade the kubelets.",
        ),
        ErrorClass::BadStatus => (
            "The kubelets answer with an error.",
            "See the kubelets' logs on these nodes.",
        ),
        ErrorClass::TooLarge => (
            "The kubelets' answers are larger than metrics-api takes.",
            "See what /metrics/resource of these nodes holds: kubectl get --raw /api/v1/nodes/NAME/proxy/metrics/resource.",
        ),
        ErrorClass::KubeletError => (
            "The kubelets say that they could not collect everything (resource_scrape_error). What they did collect is \
             answered.",
            "See the kubelets' logs on these nodes: usually the container runtime does not answer.",
        ),
        ErrorClass::Malformed => (
            "What answers is not a kubelet's resource metrics.",
            "See what /metrics/resource of these nodes holds: kubectl get --raw /api/v1/nodes/NAME/proxy/metrics/resource.",
        ),
    }
}
