//! A steady load of reads through kube-apiserver, of which each failure is kept.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::access::{Connection, Server};
use super::boundaries::token;
use super::context::Context;

/// Time between two reads.
const PAUSE: Duration = Duration::from_millis(50);
const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
const ACCOUNT: &str = "steady-reader";

/// What became of a load.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Number of reads that were answered with at least one node.
    pub(super) answered: usize,
    /// The others: when, counted from the beginning, and why.
    pub(super) failed: Vec<(Duration, String)>,
}

impl Outcome {
    /// An error if any read failed.
    pub(super) fn expect_no_failure(&self) -> Result<()> {
        ensure!(self.answered > 0, "nothing was read");
        if let Some((at, why)) = self.failed.first() {
            bail!(
                "{} of {} reads failed, the first after {:.1} s: {why}",
                self.failed.len(),
                self.answered + self.failed.len(),
                at.as_secs_f64()
            );
        }
        Ok(())
    }
}

/// Reads until `work` is done and some more, over one connection to kube-apiserver and another after each failure.
/// Nothing is tried again: what fails here fails for everybody.
pub(super) async fn during<T>(
    context: &Context,
    work: impl Future<Output = Result<T>>,
) -> Result<(T, Outcome)> {
    let (server, token) = reader(context).await?;
    let stop = CancellationToken::new();
    let reading = read(&server, &token, &stop);
    let working = async {
        let _stop = stop.clone().drop_guard();
        let done = work.await?;
        // Whatever the work has broken shows within this time.
        tokio::time::sleep(Duration::from_secs(5)).await;
        anyhow::Ok(done)
    };
    let (done, outcome) = tokio::join!(working, reading);
    Ok((done?, outcome))
}

async fn read(server: &Server, token: &str, stop: &CancellationToken) -> Outcome {
    let began = Instant::now();
    let mut outcome = Outcome::default();
    let mut kept: Option<Connection> = None;
    while !stop.is_cancelled() {
        let asked = began.elapsed();
        let answering = async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => server.connect(None, &rustls::version::TLS13).await?,
            };
            let answer = connection.get(NODES, &[("authorization", token)]).await?;
            let list = answer.json()?;
            ensure!(
                list["items"].as_array().is_some_and(|items| !items.is_empty()),
                "an empty list"
            );
            anyhow::Ok(connection)
        };
        match answering.await {
            Ok(connection) => {
                outcome.answered += 1;
                kept = Some(connection);
            }
            Err(error) => outcome.failed.push((asked, format!("{error:#}"))),
        }
        tokio::time::sleep(PAUSE).await;
    }
    outcome
}

/// kube-apiserver, and the token of an account that may read metrics.
async fn reader(context: &Context) -> Result<(Server, String)> {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": ACCOUNT, "namespace": "default"}});
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default"}],
    });
    for object in [account, binding] {
        context.apply(&object.to_string()).await?;
    }
    let authority = context.control_plane_file("/etc/kubernetes/pki/ca.crt").await?;
    let server = Server::new(
        (context.cluster.node_ip(1), 6443).into(),
        "kubernetes".to_owned(),
        authority.as_bytes(),
    )?;
    let token = token(context, ACCOUNT).await?;
    super::wait::eventually("the reader may read", Duration::from_secs(40), async || {
        let answer = server.get(None, NODES, &[("authorization", &token)]).await?;
        answer.json().map(drop)
    })
    .await
    .context("before the load")?;
    Ok((server, token))
}
