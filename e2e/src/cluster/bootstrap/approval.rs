//! Serving certificates of kubelets with `serverTLSBootstrap`: requests that kubeadm leaves to an administrator.

use anyhow::{Result, bail};
use serde_json::Value;

use super::super::Cluster;
use super::super::spec::node_name;
use super::{NODES_WITHIN, has_condition, items, until};

/// Who signs them.
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";

/// Does what an administrator does with `serverTLSBootstrap`: looks at each request and approves the right ones.
pub(super) async fn approve_serving(cluster: &Cluster) -> Result<()> {
    let nodes: Vec<String> = (1..=cluster.spec().nodes).map(node_name).collect();
    let all_issued = async || {
        let requests: Value = serde_json::from_str(
            &cluster
                .kubectl(["get", "certificatesigningrequests", "-o", "json"])
                .await?,
        )?;
        let approvable: Vec<&str> = items(&requests)
            .filter(|request| is_serving_request_of(request, &nodes) && !has_condition(request, "Approved"))
            .filter_map(|request| request.pointer("/metadata/name")?.as_str())
            .collect();
        if !approvable.is_empty() {
            cluster
                .kubectl(["certificate", "approve"].into_iter().chain(approvable))
                .await?;
        }
        let issued = |node: &&String| {
            items(&requests).any(|request| {
                is_serving_request_of(request, std::slice::from_ref(*node))
                    && request.pointer("/status/certificate").is_some()
            })
        };
        let waiting: Vec<&String> = nodes.iter().filter(|node| !issued(node)).collect();
        if !waiting.is_empty() {
            bail!("no serving certificate was issued for {waiting:?}");
        }
        Ok(())
    };
    until(NODES_WITHIN, all_issued).await
}

fn is_serving_request_of(request: &Value, nodes: &[String]) -> bool {
    let text = |pointer: &str| {
        request
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let node = text("/spec/username").strip_prefix("system:node:");
    let groups = request.pointer("/spec/groups").and_then(Value::as_array);
    text("/spec/signerName") == SERVING_SIGNER
        && node.is_some_and(|node| nodes.iter().any(|known| known == node))
        && groups.is_some_and(|groups| groups.iter().any(|group| group == "system:nodes"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request() -> Value {
        json!({
            "spec": {
                "signerName": SERVING_SIGNER,
                "username": "system:node:node-2",
                "groups": ["system:nodes", "system:authenticated"],
            },
            "status": {"conditions": [{"type": "Approved", "status": "True"}]},
        })
    }

    #[test]
    fn only_a_nodes_own_serving_request_is_approved() {
        let nodes = ["node-1".to_owned(), "node-2".to_owned()];
        assert!(is_serving_request_of(&request(), &nodes));
        assert!(!is_serving_request_of(&request(), &nodes[..1]));
        for (pointer, other) in [
            ("/spec/signerName", json!("kubernetes.io/kube-apiserver-client")),
            ("/spec/username", json!("node-2")),
            ("/spec/username", json!("system:node:node-3")),
            ("/spec/groups", json!(["system:authenticated"])),
        ] {
            let mut request = request();
            *request.pointer_mut(pointer).unwrap() = other;
            assert!(!is_serving_request_of(&request, &nodes), "{pointer}");
        }
    }
}
