//! A bad flag ends the process at once, with the flag's name.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::context::Context;
use super::wait::eventually;
use crate::images::metricsstack_reference;

const ENDED_WITHIN: Duration = Duration::from_secs(40);
/// Longest life of the program. Kubernetes tells the two times in whole seconds.
const AT_ONCE_SECONDS: i64 = 2;

/// Pod, command line, and what it must say.
const CASES: [(&str, &[&str], &str); 6] = [
    (
        "unknown-flag",
        &["metrics-api", "--no-such-flag"],
        "--no-such-flag",
    ),
    (
        "bad-duration",
        &["metrics-api", "--metric-resolution=soon"],
        "--metric-resolution",
    ),
    (
        "too-short",
        &["metrics-api", "--metric-resolution=1s"],
        "--metric-resolution",
    ),
    (
        "bad-mode",
        &["metrics-api", "--kubelet-tls-mode=Sometimes"],
        "--kubelet-tls-mode",
    ),
    (
        "no-image",
        &["metricsstack-operator", "run"],
        "--metrics-api-image",
    ),
    (
        "unknown-flag-of-the-operator",
        &["metricsstack-operator", "run", "--no-such-flag"],
        "--no-such-flag",
    ),
];

/// Both programs, as a kubelet runs them.
pub(super) async fn end_the_process(context: &Context) -> Result<()> {
    for (name, command, _) in CASES {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"restartPolicy": "Never", "containers": [{
                "name": "program", "image": metricsstack_reference(), "imagePullPolicy": "IfNotPresent",
                "command": command,
                "env": [{"name": "POD_NAMESPACE", "value": "default"}, {"name": "POD_NAME", "value": name}],
            }]},
        });
        context.apply(&pod.to_string()).await?;
    }
    for (name, _, part) in CASES {
        let ended = eventually(format!("{name} ended"), ENDED_WITHIN, async || {
            let pod: Value =
                serde_json::from_str(&context.kubectl(&["get", "pod", name, "--output=json"]).await?)?;
            let ended = pod["status"]["containerStatuses"][0]["state"]["terminated"].clone();
            ensure!(ended.is_object(), "{name}: {}", pod["status"]);
            Ok(ended)
        });
        let ended = ended.await?;
        let log = context.kubectl(&["logs", name]).await?;
        ensure!(ended["exitCode"] != 0, "{name} ended well: {log}");
        let time = |field: &str| ended[field].as_str().unwrap_or_default().parse::<Timestamp>();
        let lived = time("finishedAt")?.as_second() - time("startedAt")?.as_second();
        ensure!(lived <= AT_ONCE_SECONDS, "{name} ended after {lived} s");
        ensure!(log.contains(part), "{name} does not name {part}: {log}");
    }
    let names = CASES.map(|(name, ..)| name);
    context
        .kubectl(&[["delete", "pod", "--wait=false"].as_slice(), &names].concat())
        .await?;
    Ok(())
}
