//! Health checks behind `/livez`, `/readyz` and `/healthz`.

use std::fmt::{self, Write as _};

use crate::status::Quoted;

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

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the check. The error is for the log.
    pub fn run(&self) -> Result<(), String> {
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

/// Answers `/livez`, `/readyz` or `/healthz` (`endpoint`, without the slash) as kube-apiserver does: whether it is
/// well, and the text. `verbose` shows each check of a passing answer too; `exclude` names checks to leave out.
pub(crate) fn report(
    checks: &[HealthCheck],
    endpoint: &str,
    verbose: bool,
    exclude: &[&str],
) -> (bool, String) {
    let mut text = String::new();
    let mut well = true;
    let mut unknown = exclude.to_vec();
    unknown.sort_unstable();
    unknown.dedup();
    for check in checks_of(checks, endpoint) {
        let name = check.name;
        // Writing to a String does not fail.
        let _ = if exclude.contains(&name) {
            unknown.retain(|unknown| *unknown != name);
            writeln!(text, "[+]{name} excluded: ok")
        } else if let Err(error) = check.run() {
            well = false;
            tracing::info!(endpoint, check = name, error, "health check failed");
            writeln!(text, "[-]{name} failed: reason withheld")
        } else {
            writeln!(text, "[+]{name} ok")
        };
    }
    if !unknown.is_empty() {
        let unknown: Vec<_> = unknown.iter().map(|name| Quoted(name).to_string()).collect();
        let unknown = unknown.join(",");
        let _ = writeln!(
            text,
            "warn: some health checks cannot be excluded: no matches for {unknown}"
        );
    }
    let _ = writeln!(
        text,
        "{endpoint} check {}",
        if well { "passed" } else { "failed" }
    );
    if well && !verbose {
        "ok".clone_into(&mut text);
    }
    (well, text)
}

/// Answers `/readyz/NAME` and the like, if there is such a check. This path needs a permission of its own, so the
/// reason is told.
pub(crate) fn report_one(checks: &[HealthCheck], endpoint: &str, name: &str) -> Option<(bool, String)> {
    let check = checks_of(checks, endpoint).find(|check| check.name == name)?;
    Some(match check.run() {
        Ok(()) => (true, "ok".to_owned()),
        Err(error) => (false, format!("internal server error: {error}\n")),
    })
}

fn checks_of<'a>(checks: &'a [HealthCheck], endpoint: &str) -> impl Iterator<Item = &'a HealthCheck> {
    let readyz = endpoint == "readyz";
    checks.iter().filter(move |check| readyz || check.livez)
}
