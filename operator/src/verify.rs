//! A real read: a list of every version through the aggregator. Nothing else proves that metrics can be read.

use std::net::SocketAddr;
use std::time::Duration;

use contract::names;
use futures::future::join_all;
use http_body_util::{BodyExt as _, Limited};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api_servers::ApiServer;
use crate::cluster;
use crate::observe::Read;

/// Time for one list. kube-aggregator itself gives up after 60 s; whoever looks at a HorizontalPodAutoscaler does before.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Most bytes of one list: some 200 000 nodes.
const BODY_LIMIT: usize = 64 << 20;

/// Lists the nodes' metrics in each version, through each kube-apiserver that can be reached. What the first one says
/// that does not answer counts for all.
pub async fn through(servers: &[ApiServer]) -> (Read, Vec<(SocketAddr, Option<Read>)>) {
    let each = join_all(servers.iter().map(|server| async {
        match &server.client {
            Some(client) => Some(read(client).await),
            None => None,
        }
    }))
    .await;
    let failed = each.iter().flatten().find(|read| **read != Read::Succeeded);
    let read = failed.or(each.iter().flatten().next()).cloned();
    let each = servers.iter().zip(each);
    let each = each.filter_map(|(server, read)| Some((server.address?, read)));
    (read.unwrap_or_default(), each.collect())
}

/// Lists the nodes' metrics in each version.
pub async fn read(client: &Client) -> Read {
    for version in names::METRICS_VERSIONS {
        if let Err(reason) = read_version(client, version).await {
            return Read::Failed {
                version: version.to_owned(),
                reason,
            };
        }
    }
    Read::Succeeded
}

#[derive(Deserialize)]
struct List {
    kind: String,
    #[serde(rename = "apiVersion")]
    api_version: String,
    items: Vec<IgnoredAny>,
}

async fn read_version(client: &Client, version: &str) -> Result<(), String> {
    let path = format!("/apis/{}/{version}/nodes", names::METRICS_GROUP);
    let answer = tokio::time::timeout(TIMEOUT, get(client, &path, BODY_LIMIT))
        .await
        .map_err(|_| format!("GET {path}: no answer within {} s", TIMEOUT.as_secs()))?;
    let body = answer.map_err(|reason| format!("GET {path}: {reason}"))?;
    judge(&body, version).map_err(|reason| format!("GET {path}: {reason}"))
}

/// Whether the answer is a list of what was asked for, and not empty.
fn judge(body: &[u8], version: &str) -> Result<(), String> {
    let list: List =
        serde_json::from_slice(body).map_err(|error| format!("the answer is no list of metrics: {error}"))?;
    let expected = format!("{}/{version}", names::METRICS_GROUP);
    if list.kind != "NodeMetricsList" || list.api_version != expected {
        return Err(format!(
            "expected a NodeMetricsList of {expected}, got a {} of {}",
            list.kind, list.api_version
        ));
    }
    if list.items.is_empty() {
        return Err("the list is empty: metrics-api has no usage of any node yet".to_owned());
    }
    Ok(())
}

/// The body of a good answer, or one line about a bad one.
pub(crate) async fn get(client: &Client, path: &str, limit: usize) -> Result<Vec<u8>, String> {
    let request = http::Request::get(path)
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let response = client
        .send(request)
        .await
        .map_err(|error| cluster::describe(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), limit)
        .collect()
        .await
        .map_err(|error| format!("the answer broke off: {error}"))?
        .to_bytes();
    if status.is_success() {
        return Ok(body.into());
    }
    let message = serde_json::from_slice::<kube::core::Status>(&body).map(|status| status.message);
    Err(match message {
        Ok(message) if !message.is_empty() => format!("{message} ({})", status.as_u16()),
        // What is no Status comes from the aggregator: `error trying to reach service: ...`.
        _ => {
            let text: String = String::from_utf8_lossy(&body).trim().chars().take(300).collect();
            format!("{} ({})", text.replace('\n', " "), status.as_u16())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_list_of_the_version_with_items_counts() {
        let list = |version: &str, items: &str| {
            format!(
                r#"{{"kind":"NodeMetricsList","apiVersion":"metrics.k8s.io/{version}","metadata":{{}},"items":{items}}}"#
            )
        };
        assert_eq!(judge(list("v1", r#"[{"a":1}]"#).as_bytes(), "v1"), Ok(()));
        let reason = |body: String| judge(body.as_bytes(), "v1").unwrap_err();
        assert!(reason(list("v1", "[]")).contains("empty"));
        assert!(reason(list("v1beta1", "[{}]")).contains("expected a NodeMetricsList of metrics.k8s.io/v1"));
        assert!(reason("nonsense".to_owned()).contains("no list of metrics"));
    }
}
