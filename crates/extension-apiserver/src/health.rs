//! Health checks behind `/livez`, `/readyz` and `/healthz`.

use std::fmt;

/// A named check. Its failure is logged and shown by name; the reason is withheld from clients, as kube-apiserver
/// does, because the endpoints are open to everyone.
pub struct HealthCheck {
    pub(crate) name: &'static str,
    pub(crate) livez: bool,
    check: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl HealthCheck {
    /// A check of `/readyz` only: what a restart would not mend.
    pub fn ready(name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self {
            name,
            livez: false,
            check: Box::new(check),
        }
    }

    /// A check of `/livez`, `/healthz` and `/readyz`: the kubelet restarts the pod when it fails.
    pub fn live(name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self {
            name,
            livez: true,
            check: Box::new(check),
        }
    }

    /// Runs the check. The error is for the log.
    pub(crate) fn run(&self) -> Result<(), String> {
        (self.check)()
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheck")
            .field("name", &self.name)
            .field("livez", &self.livez)
            .finish_non_exhaustive()
    }
}
