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
/// ServiceAccount whose short-lived token is what kubelets get to see. It may `get` `nodes/metrics` and `nodes/stats`.
pub const KUBELET_SERVICE_ACCOUNT: &str = "metrics-api-kubelet";
/// Secret with the certificate authority of the serving certificate (`tls.crt`, `tls.key`). Read by the operator only.
pub const CA_SECRET: &str = "metrics-api-ca";
/// Secret with the serving certificate (`tls.crt`, `tls.key`), mounted by metrics-api.
pub const SERVING_SECRET: &str = "metrics-api-serving";

/// Port that metrics-api listens on in its pod: what firewalls of managed clouds already let through.
pub const METRICS_API_PORT: u16 = 10250;
/// Port of the Service, written into the APIServices.
pub const SERVICE_PORT: u16 = 443;
/// Path of the node report ([`crate::report::NodeReport`]), authorized as a non-resource URL.
pub const DEBUG_NODES_PATH: &str = "/debug/nodes";

/// ConfigMap of `kube-system` in which kube-apiserver publishes its client and front-proxy authorities.
pub const AUTHENTICATION_CONFIG_MAP: &str = "extension-apiserver-authentication";
