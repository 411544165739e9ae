//! Health checks behind `/livez`, `/readyz` and `/healthz`.

use std::fmt::{self, Write as _};

use crate::status::Quoted;

/// Where a check is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthEndpoint {
    /// `/readyz`: whether clients are sent here.
    Ready,
    /// `/livez`: the kubelet restarts the pod when it fails.
    Live,
    /// `/healthz`, of old, which is asked by people and by what they wrote long ago.
    Health,
}

impl HealthEndpoint {
    fn path(self) -> &'static str {
        match self {
            Self::Ready => "readyz",
            Self::Live => "livez",
            Self::Health => "healthz",
        }
    }
}

/// A named check. Its failure is logged and shown by name; the reason is withheld from clients, as kube-apiserver
/// does, because the endpoints are open to everyone.
pub struct HealthCheck {
    pub(crate) name: &'static str,
    endpoints: &'static [HealthEndpoint],
    /// Whether it is left out of the list while it passes.
    quiet: bool,
    check: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl HealthCheck {
    /// A check of `/readyz` only: what a restart would not mend.
    pub fn ready(name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self::at(&[HealthEndpoint::Ready], name, check)
    }

    /// A check of `/livez`, `/healthz` and `/readyz`: the kubelet restarts the pod when it fails.
    pub fn live(name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        use HealthEndpoint::{Health, Live, Ready};
        Self::at(&[Ready, Live, Health], name, check)
    }

    /// A check of these endpoints.
    pub fn at(
        endpoints: &'static [HealthEndpoint],
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            endpoints,
            quiet: false,
            check: Box::new(check),
        }
    }

    /// The same, listed only when it fails: for servers whose list of checks others compare with that of another
    /// program.
    #[must_use]
    pub fn quiet(self) -> Self {
        Self { quiet: true, ..self }
    }

    /// Whether it is asked there.
    #[must_use]
    pub fn is_at(&self, endpoint: HealthEndpoint) -> bool {
        self.endpoints.contains(&endpoint)
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
            .field("endpoints", &self.endpoints)
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
        let outcome = (!exclude.contains(&name)).then(|| check.run());
        if check.quiet && outcome == Some(Ok(())) {
            continue;
        }
        // Writing to a String does not fail.
        let _ = match outcome {
            None => {
                unknown.retain(|unknown| *unknown != name);
                writeln!(text, "[+]{name} excluded: ok")
            }
            Some(Ok(())) => writeln!(text, "[+]{name} ok"),
            Some(Err(error)) => {
                well = false;
                tracing::info!(endpoint, check = name, error, "health check failed");
                writeln!(text, "[-]{name} failed: reason withheld")
            }
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
    checks
        .iter()
        .filter(move |check| check.endpoints.iter().any(|at| at.path() == endpoint))
}
