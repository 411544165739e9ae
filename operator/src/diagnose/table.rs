//! Every kind of finding: its name, what it means and what to do. Status, events and documentation read this table.

mod kubelets;
mod reads;

use contract::report::{ErrorClass, FrontProxyFault};

/// A kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A part of the cluster could not be read.
    NotObserved,
    /// The spec was refused.
    InvalidSpec,
    /// Somebody else's serving certificate is not good.
    GivenCertificateUnfit,
    /// The `ConfigMap` with kubelets' authorities holds none.
    KubeletAuthoritiesUnfit,
    /// No certificate could be made.
    CertificatesUnavailable,
    /// An object with a name of ours belongs to somebody else.
    ObjectConflict,
    /// Somebody else keeps changing an object of ours.
    ObjectContested,
    /// kube-apiserver did not take an object.
    ApplyFailed,
    /// An `APIService` of the group belongs to somebody else.
    ForeignApiService,
    /// kube-apiserver has no front proxy configured.
    AggregationDisabled,
    /// One authority signs front proxies and ordinary clients.
    FrontProxyAuthorityShared,
    /// metrics-api does not believe kube-apiserver's front proxy.
    FrontProxy(FrontProxyFault),
    /// kube-apiserver does not trust metrics-api's serving certificate.
    ServingCertificateNotTrusted,
    /// kube-apiserver does not reach metrics-api's Pods, which answer the operator.
    ControlPlaneCannotReachPods,
    /// The Service leads to none of the replicas that are ready.
    ServiceWithoutEndpoints,
    /// A connection that kube-apiserver had kept was dead.
    ConnectionLost,
    /// A serving certificate was not renewed in time.
    CertificateExpires,
    /// kube-apiserver's front-proxy certificate ends soon.
    FrontProxyCertificateExpires,
    /// metrics-api's image cannot be pulled.
    ImagePullFailed,
    /// A Pod finds no node.
    Unschedulable,
    /// A Pod may not be created.
    PodsRefused,
    /// A container ends again and again.
    ContainerCrashing,
    /// A container does not start.
    ContainerNotStarting,
    /// A rollout stands still for another reason.
    RolloutStuck,
    /// Kubelets fail in this way.
    Kubelet(ErrorClass),
    /// A list through the aggregator failed.
    ReadFailed,
    /// A replica does not tell what it knows about kubelets.
    ReportUnavailable,
    /// Namespaces cannot be deleted.
    NamespacesStuck,
    /// What Prometheus and Grafana are told could not be written.
    MonitoringFailed,
    /// Kubelets wait for somebody to approve their serving certificates.
    KubeletCertificatesPending,
    /// The server whose `APIService` was adopted still runs.
    FormerServerRuns,
    /// Kubelets are trusted by a pinned key.
    KubeletsPinned,
    /// Kubelets are not verified at all.
    KubeletsNotVerified,
}

/// What the table says about a kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it means.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl Reason {
    /// Every kind, the most severe first.
    pub fn all() -> impl Iterator<Item = Self> {
        let kubelets = ErrorClass::ALL.iter().copied().map(Self::Kubelet);
        [
            Self::NotObserved,
            Self::InvalidSpec,
            Self::GivenCertificateUnfit,
            Self::KubeletAuthoritiesUnfit,
            Self::CertificatesUnavailable,
            Self::ObjectConflict,
            Self::ObjectContested,
            Self::ApplyFailed,
            Self::ForeignApiService,
            Self::AggregationDisabled,
            Self::FrontProxyAuthorityShared,
        ]
        .into_iter()
        .chain(FrontProxyFault::ALL.map(Self::FrontProxy))
        .chain([
            Self::ServingCertificateNotTrusted,
            Self::ControlPlaneCannotReachPods,
            Self::ServiceWithoutEndpoints,
            Self::ConnectionLost,
            Self::CertificateExpires,
            Self::FrontProxyCertificateExpires,
            Self::ImagePullFailed,
            Self::Unschedulable,
            Self::PodsRefused,
            Self::ContainerCrashing,
            Self::ContainerNotStarting,
            Self::RolloutStuck,
        ])
        .chain(kubelets)
        .chain([
            Self::ReadFailed,
            Self::ReportUnavailable,
            Self::NamespacesStuck,
            Self::MonitoringFailed,
            Self::KubeletCertificatesPending,
            Self::FormerServerRuns,
            Self::KubeletsPinned,
            Self::KubeletsNotVerified,
        ])
    }

    /// The stable name, as in conditions and events.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Kubelet(class) => format!("Kubelet{class}"),
            Self::FrontProxy(FrontProxyFault::Other) => "FrontProxyRefused".to_owned(),
            Self::FrontProxy(fault) => format!("FrontProxy{fault:?}"),
            other => format!("{other:?}"),
        }
    }

    /// What the table says about it.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "it is a table")]
    pub fn entry(self) -> Entry {
        let (cause, remedy) = match self {
            Self::NotObserved => (
                "The operator cannot read a part of the cluster, so it cannot tell what is wrong there.",
                "If it says forbidden, restore the operator's rights: install its chart again. Otherwise see how \
                 kube-apiserver is; the operator goes on trying.",
            ),
            Self::InvalidSpec => (
                "The spec asks for what cannot be.",
                "Correct the named field. What ran before keeps running until then.",
            ),
            Self::GivenCertificateUnfit => (
                "The Secret in spec.certificates.secretName does not hold a serving certificate that kube-apiserver \
                 would accept.",
                "Correct what is named: tls.crt for metrics-api.<namespace>.svc, valid now, with the key in \
                 tls.key and the authority that it leads to in ca.crt. If it says forbidden, add the Secret's name to the chart's certificateSecretNames.",
            ),
            Self::KubeletAuthoritiesUnfit => KUBELET_AUTHORITIES_UNFIT,
            Self::CertificatesUnavailable => (
                "A certificate could not be made.",
                "This is a fault of the operator: see its log and report it.",
            ),
            Self::ObjectConflict => (
                "An object with a name that the operator needs exists without its label, so it was not touched.",
                "Delete or rename that object, or install the operator in another namespace.",
            ),
            Self::ObjectContested => OBJECT_CONTESTED,
            Self::ApplyFailed => (
                "kube-apiserver did not take an object.",
                "If it names a field that the MetricsStack sets, correct the spec. If it says forbidden, restore the \
                 operator's rights: install its chart again.",
            ),
            Self::ForeignApiService => (
                "Another program answers this API group. Two of them would answer by turns, so the operator registers \
                 nothing while that is so.",
                "Set spec.apiService.adopt to Always to take it over without a failed request, or to Unmanaged if it \
                 answers nobody any more. Or remove the other one (metrics-server: uninstall its chart or manifests); the \
                 operator takes over within seconds. Or delete the MetricsStack and keep the other one.",
            ),
            Self::AggregationDisabled => (
                "kube-apiserver does not publish a front-proxy authority, so it cannot tell an extension API server \
                 who is asking.",
                "Start kube-apiserver with --requestheader-client-ca-file, --requestheader-allowed-names, \
                 --requestheader-username-headers, --requestheader-group-headers, \
                 --requestheader-extra-headers-prefix, --proxy-client-cert-file and --proxy-client-key-file. On a \
                 managed cluster ask its provider.",
            ),
            Self::FrontProxyAuthorityShared => (
                "One authority signs the front proxy's certificate and those of ordinary clients, so an ordinary client may \
                 pass for the front proxy, or is refused because its name is not a front proxy's.",
                "Make an authority for the front proxy alone, sign --proxy-client-cert-file by it, and start \
                 kube-apiserver with it as --requestheader-client-ca-file.",
            ),
            Self::ImagePullFailed => (
                "The node cannot get metrics-api's image.",
                "Check spec.metricsApi.image (default: the operator's own image), imagePullPolicy and \
                 imagePullSecrets; on a node without a registry load the image there.",
            ),
            Self::Unschedulable => (
                "No node can run a replica of metrics-api.",
                "Compare spec.metricsApi.nodeSelector, tolerations, affinity and resources with the nodes; \
                 spec.metricsApi.replicas can be lowered.",
            ),
            Self::PodsRefused => (
                "kube-apiserver does not admit Pods of metrics-api.",
                "Look for a quota or an admission policy in the operator's namespace; a priority class that may only \
                 be used elsewhere is changed with spec.metricsApi.priorityClassName.",
            ),
            Self::ContainerCrashing => (
                "metrics-api ends right after its start.",
                "Read its last words above, or `kubectl logs --previous` of the Pod. spec.metricsApi.image must be of \
                 the operator's own version.",
            ),
            Self::ContainerNotStarting => (
                "metrics-api's container does not start.",
                "See the events in `kubectl describe pod` of the Pod.",
            ),
            Self::RolloutStuck => (
                "metrics-api's Deployment makes no progress.",
                "See `kubectl describe deployment metrics-api` and its Pods in the operator's namespace.",
            ),
            Self::ReadFailed
            | Self::FrontProxy(_)
            | Self::ServingCertificateNotTrusted
            | Self::ControlPlaneCannotReachPods
            | Self::ServiceWithoutEndpoints
            | Self::ConnectionLost
            | Self::CertificateExpires
            | Self::FrontProxyCertificateExpires
            | Self::NamespacesStuck => reads::entry(self),
            Self::Kubelet(class) => kubelets::entry(class),
            Self::ReportUnavailable => (
                "The operator cannot ask a replica of metrics-api what it knows about kubelets.",
                "The operator must reach metrics-api's Pods on port 10250: look for network policies. After a change of \
                 certificates it passes within two minutes.",
            ),
            Self::MonitoringFailed => MONITORING_FAILED,
            Self::KubeletCertificatesPending => KUBELET_CERTIFICATES_PENDING,
            Self::FormerServerRuns => FORMER_SERVER_RUNS,
            Self::KubeletsPinned => (
                "Their certificates are not signed by the cluster's CA (kubeadm's default), so mode Auto trusts each \
                 by the public key it showed first.",
                "This works. For full verification set serverTLSBootstrap: true in the kubelets' configuration, \
                 restart them and approve their requests (kubectl get csr; kubectl certificate approve NAME): they \
                 are verified from then on. After that spec.kubelet.tls.mode: Verify rules out pinning.",
            ),
            Self::KubeletsNotVerified => (
                "spec.kubelet.tls.mode is Insecure: whoever answers in a kubelet's place is believed.",
                "Set spec.kubelet.tls.mode to Auto, which works with kubelets that sign their own certificates.",
            ),
        };
        Entry { cause, remedy }
    }
}

const KUBELET_AUTHORITIES_UNFIT: (&str, &str) = (
    "The ConfigMap in spec.kubelet.tls.caBundle does not hold authorities of kubelets' certificates. Those that it held last \
     stay in use; where there were none, metrics-api stays as it is.",
    "Put what is named right: one or more PEM certificates and nothing secret, under the key that the spec names or \
     ca.crt.",
);

const FORMER_SERVER_RUNS: (&str, &str) = (
    "Nobody asks it any more, but it goes on scraping every kubelet. While it runs, it gets its APIService \
     back when the MetricsStack is deleted.",
    "Remove its Deployment when you are content with the new one. `helm uninstall` or deleting its manifests \
     takes the APIService too; the operator registers itself again within seconds.",
);

const MONITORING_FAILED: (&str, &str) = (
    "A monitor, the alerts or the dashboard could not be written or removed. Metrics are answered all the same.",
    "See what refuses it: mostly a webhook of the Prometheus operator that does not answer, or does not like what it \
     gets. spec.monitoring can leave it out.",
);

const KUBELET_CERTIFICATES_PENDING: (&str, &str) = (
    "Kubelets with serverTLSBootstrap: true get their serving certificates when somebody approves their requests, and \
     nobody does.",
    "Set spec.kubelet.approveServingCertificates: true, and the operator approves those that are in order; or approve \
     them yourself (kubectl get csr; kubectl certificate approve NAME).",
);

const OBJECT_CONTESTED: (&str, &str) = (
    "Two controllers write one object. The operator leaves it alone for a while, longer each time up to ten \
     minutes, so that they do not keep each other busy; until then it is as the other one wants it.",
    "Have the other one leave the object alone: a GitOps tool must not manage what the operator makes, and a \
     mutating webhook must not change it. What shall be otherwise belongs into the spec of the \
     MetricsStack.",
);

#[cfg(test)]
mod tests;
