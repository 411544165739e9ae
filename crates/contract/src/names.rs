//! Names that both programs, the chart and the tests must spell alike.

/// API group of `MetricsStack`.
pub const STACK_GROUP: &str = "metricsstack.dev";
/// The only name a `MetricsStack` may have.
pub const STACK_NAME: &str = "default";

/// API group that metrics-api serves.
pub const METRICS_GROUP: &str = "metrics.k8s.io";
/// Versions of [`METRICS_GROUP`], preferred first. Both are always served: kubectl 1.37 prefers `v1`, the
/// HorizontalPodAutoscaler's controller reads `v1beta1`.
pub const METRICS_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Label that marks an object as the operator's. Only objects with this label and value are applied to or pruned.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`], and the operator's field manager.
pub const MANAGED_BY: &str = "metricsstack-operator";
/// Label that names the `MetricsStack` an object belongs to.
pub const STACK_LABEL: &str = "metricsstack.dev/stack";
/// Label with the program's name, used in selectors.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";

/// Name of metrics-api's Deployment, Service, ServiceAccount, and prefix of its other objects.
pub const METRICS_API: &str = "metrics-api";
/// ServiceAccount whose short-lived token is what kubelets get to see. It may `get` `nodes/metrics` and `nodes/stats`, and
/// [`DEBUG_NODES_PATH`], for which the operator shows such a token to metrics-api.
pub const KUBELET_SERVICE_ACCOUNT: &str = "metrics-api-kubelet";
/// Secret with the certificate authority of the serving certificate (`tls.crt`, `tls.key`). Read by the operator only.
pub const CA_SECRET: &str = "metrics-api-ca";
/// Secret with the serving certificate (`tls.crt`, `tls.key`), mounted by metrics-api.
pub const SERVING_SECRET: &str = "metrics-api-serving";

/// Names of the Secret's entry and of the file that metrics-api reads its serving certificate from.
pub const TLS_CERTIFICATE: &str = "tls.crt";
/// The same for the private key.
pub const TLS_KEY: &str = "tls.key";
/// ConfigMap with a dashboard for Grafana.
pub const DASHBOARD_CONFIG_MAP: &str = "metrics-api-dashboard";
/// ConfigMap with the authorities of kubelets' certificates (`ca.crt`), where the stack names its own.
pub const KUBELET_CA_CONFIG_MAP: &str = "metrics-api-kubelet-ca";
/// The entry of [`KUBELET_CA_CONFIG_MAP`].
pub const KUBELET_CA: &str = "ca.crt";

/// ClusterRole that lets people read metrics, aggregated to `view`, `edit` and `admin`.
pub const READER_CLUSTER_ROLE: &str = "metricsstack:metrics-reader";
/// ClusterRole of metrics-api, and name of its binding.
pub const SERVER_CLUSTER_ROLE: &str = "metricsstack:metrics-api";
/// ClusterRole of [`KUBELET_SERVICE_ACCOUNT`], and name of its binding.
pub const KUBELET_CLUSTER_ROLE: &str = "metricsstack:metrics-api-kubelet";
/// ClusterRoleBinding of metrics-api to `system:auth-delegator`.
pub const AUTH_DELEGATOR_BINDING: &str = "metricsstack:metrics-api-auth-delegator";
/// RoleBinding in `kube-system` of metrics-api to `extension-apiserver-authentication-reader`.
pub const AUTH_READER_BINDING: &str = "metricsstack:metrics-api-auth-reader";

/// Port that metrics-api listens on in its pod: what firewalls of managed clouds already let through.
pub const METRICS_API_PORT: u16 = 10250;
/// Port of the Service, written into the APIServices.
pub const SERVICE_PORT: u16 = 443;
/// Path of the node report ([`crate::report::NodeReport`]), authorized as a non-resource URL.
pub const DEBUG_NODES_PATH: &str = "/debug/nodes";

/// ConfigMap of `kube-system` in which kube-apiserver publishes its client and front-proxy authorities.
pub const AUTHENTICATION_CONFIG_MAP: &str = "extension-apiserver-authentication";

/// Label, with value `true`, of the ConfigMaps in which metrics-api keeps the trust records of kubelets
/// ([`crate::trust`]). They are metrics-api's own: what the operator applies and prunes does not include them, and
/// they go with the stack.
pub const TRUST_LABEL: &str = "metricsstack.dev/kubelet-trust";
