//! What findings about failed reads mean, and what to do.

use contract::report::FrontProxyFault;

use super::Reason;

/// Of those reasons only.
pub(super) fn entry(reason: Reason) -> (&'static str, &'static str) {
    match reason {
        Reason::FrontProxy(fault) => front_proxy(fault),
        Reason::ServingCertificateNotTrusted => (
            "kube-apiserver does not trust the certificate that metrics-api shows: it does not fit spec.caBundle of the \
             APIServices, or something else answers in its place.",
            "The operator puts caBundle right within seconds. If this stays, look who else writes it (kubectl get \
             apiservices v1.metrics.k8s.io --output=yaml --show-managed-fields), or for a proxy between kube-apiserver and \
             the Pods.",
        ),
        Reason::ControlPlaneCannotReachPods => (
            "metrics-api answers the operator, but kube-apiserver does not reach it: the way from the control plane to \
             the Pods is closed.",
            "Open the port of metrics-api's Pods (default 10250) from the control plane, in firewalls and network \
             policies. Where the control plane is not part of the Pods' network set spec.metricsApi.hostNetwork: true.",
        ),
        Reason::ServiceWithoutEndpoints => (
            "kube-apiserver finds no address of a replica that is ready: the Service selects none, has no port with the \
             name https, or nobody writes its EndpointSlices.",
            "The operator puts its Service right within seconds; another finding says what keeps it from that. Otherwise \
             see that kube-controller-manager runs, which writes EndpointSlices.",
        ),
        Reason::ConnectionLost => (
            "kube-apiserver asked on a connection of HTTP/2 that it had kept, and whose other end is gone, as when a Pod or a \
             node dies.",
            "It passes within 45 seconds. metrics-api offers HTTP/1.1 only, with which it passes with the next read, so a \
             proxy between them speaks HTTP/2: look for one. If it comes again, look at what ends Pods or nodes.",
        ),
        Reason::CertificateExpires => (
            "It should have been renewed long before. When it has expired, nothing can be read.",
            "Other findings say what keeps the operator from renewing it. With spec.certificates.issuer Secret see to \
             that Secret's owner. If a Pod serves another one than is stored, delete the Pod.",
        ),
        Reason::FrontProxyCertificateExpires => (
            "With it kube-apiserver shows metrics-api that it is who it is. When it has expired, every read is Unauthorized, \
             here and at every other extension API server.",
            "On every control-plane node: kubeadm certs renew front-proxy-client; kube-apiserver takes it up within a \
             minute. k3s, RKE2 and OpenShift renew it by themselves: k3s and RKE2 when they are started again.",
        ),
        Reason::NamespacesStuck => (
            "Kubernetes deletes a namespace when every API group has told what it has there, and metrics.k8s.io does \
             not answer.",
            "Mend the Metrics API as the other findings say; the namespaces then go by themselves. Do not remove their \
             finalizers: what is in them would stay for ever.",
        ),
        _ => (
            "kube-apiserver does not get an answer from metrics-api.",
            "kube-apiserver must reach metrics-api's Pods (port 10250) or its Service (port 443): look for network \
             policies, firewalls between control plane and Pods, and proxy variables in kube-apiserver's environment \
             without .svc in no_proxy.",
        ),
    }
}

fn front_proxy(fault: FrontProxyFault) -> (&'static str, &'static str) {
    match fault {
        FrontProxyFault::UnknownAuthority => (
            "kube-apiserver's front-proxy certificate is not signed by the authority that kube-apiserver publishes: one of \
             the two was made anew, perhaps under the same name.",
            "On every control-plane node sign --proxy-client-cert-file by the authority in \
             --requestheader-client-ca-file (kubeadm certs renew front-proxy-client) and start kube-apiserver again.",
        ),
        FrontProxyFault::AuthorityExpired => (
            "The authority that kube-apiserver publishes for front proxies has expired, and with it every certificate that \
             it has signed.",
            "On every control-plane node make the authority in --requestheader-client-ca-file anew (kubeadm: move \
             front-proxy-ca.* away, kubeadm init phase certs front-proxy-ca and front-proxy-client) and start \
             kube-apiserver again.",
        ),
        FrontProxyFault::Expired => (
            "kube-apiserver's front-proxy certificate has expired, or is not valid yet by the clock of metrics-api's node.",
            "On every control-plane node: kubeadm certs renew front-proxy-client; kube-apiserver takes it up within a \
             minute. Check the nodes' clocks.",
        ),
        FrontProxyFault::WrongUsage => (
            "kube-apiserver's front-proxy certificate is not for client authentication.",
            "Make --proxy-client-cert-file anew with the extended key usage clientAuth.",
        ),
        FrontProxyFault::NameNotAllowed => (
            "The common name of kube-apiserver's front-proxy certificate is not among those that kube-apiserver publishes.",
            "Add it to --requestheader-allowed-names of every kube-apiserver, or make --proxy-client-cert-file anew with \
             a name that is there (kubeadm: front-proxy-client).",
        ),
        FrontProxyFault::Other => (
            "metrics-api does not accept kube-apiserver's front-proxy certificate.",
            "Compare --proxy-client-cert-file with --requestheader-client-ca-file on every control-plane node.",
        ),
    }
}
