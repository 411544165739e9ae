//! What a cluster is asked to be, and the names and addresses that follow from it.

use std::fmt::{Display, Formatter};
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::image::hexadecimal;

/// Each node has a veth pair on one bridge and an address of one /24; the switch takes the last.
pub(crate) const MAX_NODES: u8 = 50;
const LONGEST_NAME: usize = 24;
/// The address of the switch, which every node uses as its gateway.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 254);
/// All pods of a cluster; node N has 10.244.N.0/24.
pub(crate) const POD_RANGE: &str = "10.244.0.0/16";
/// kubeadm's default for Services.
pub(crate) const SERVICE_RANGE: &str = "10.96.0.0/12";

/// How kubelets come to their serving certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ServingCertificates {
    /// kubeadm's default: each kubelet signs its own, with a DNS name only.
    #[default]
    SelfSigned,
    /// `serverTLSBootstrap: true`, and the harness approves the requests as an administrator would.
    Csr,
    /// `serverTLSBootstrap: true`, and nobody approves the requests.
    CsrPending,
}

/// What a cluster is asked to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Tells clusters on one machine apart: lower-case letters, digits and hyphens.
    pub name: String,
    /// How many nodes; the first one also carries the control plane.
    pub nodes: u8,
    /// How kubelets come to their serving certificates.
    pub kubelet_serving_certificates: ServingCertificates,
}

impl ClusterSpec {
    /// Two nodes with kubeadm's defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            nodes: 2,
            kubelet_serving_certificates: ServingCertificates::default(),
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        validate_name(&self.name)?;
        if !(1..=MAX_NODES).contains(&self.nodes) {
            bail!("--nodes is {}, expected 1 to {MAX_NODES}", self.nodes);
        }
        Ok(())
    }
}

impl Display for ClusterSpec {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        let certificates = match self.kubelet_serving_certificates {
            ServingCertificates::SelfSigned => "self-signed",
            ServingCertificates::Csr => "csr",
            ServingCertificates::CsrPending => "no",
        };
        write!(
            formatter,
            "{} nodes and {certificates} kubelet serving certificates",
            self.nodes
        )
    }
}

/// A cluster's name becomes part of paths and control groups.
pub(crate) fn validate_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(allowed) || name.starts_with('-') {
        bail!("--cluster is {name:?}, expected up to {LONGEST_NAME} lower-case letters, digits and hyphens");
    }
    Ok(())
}

/// The name of a node; the same in every cluster, as hostnames are private to a node's namespaces.
pub(crate) fn node_name(node: u8) -> String {
    format!("node-{node}")
}

pub(crate) fn node_address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, node)
}

pub(crate) fn node_pod_range(node: u8) -> String {
    format!("10.244.{node}.0/24")
}

/// What the names of a cluster's control groups begin with. Control groups are the one thing that all caches of a
/// machine share, hence the digest of the folder.
pub(crate) fn cgroup_prefix(name: &str, folder: &Path) -> String {
    let digest = hexadecimal(&Sha256::digest(folder.as_os_str().as_encoded_bytes()));
    let digest: String = digest.chars().take(8).collect();
    format!("metricsstack-e2e-{name}-{digest}-")
}

/// The routes of the switch: every process in its namespace reaches nodes, pods and Services.
pub(crate) fn switch_routes(nodes: u8) -> Vec<(String, Ipv4Addr)> {
    let mut routes: Vec<_> = (1..=nodes)
        .map(|node| (node_pod_range(node), node_address(node)))
        .collect();
    routes.push((SERVICE_RANGE.to_owned(), node_address(1)));
    routes
}

/// The routes of a node, beside the default one: straight to the pods of its peers.
pub(crate) fn node_routes(node: u8, nodes: u8) -> Vec<(String, Ipv4Addr)> {
    let peers = (1..=nodes).filter(|peer| *peer != node);
    peers
        .map(|peer| (node_pod_range(peer), node_address(peer)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_lead_to_every_pod_range_but_the_nodes_own() {
        assert_eq!(
            node_routes(2, 3),
            [
                ("10.244.1.0/24".to_owned(), node_address(1)),
                ("10.244.3.0/24".to_owned(), node_address(3))
            ]
        );
        let switch = switch_routes(2);
        assert_eq!(switch.len(), 3);
        assert_eq!(
            switch[2],
            ("10.96.0.0/12".to_owned(), Ipv4Addr::new(10, 78, 0, 1))
        );
        assert!(node_address(MAX_NODES) != GATEWAY);
    }

    #[test]
    fn names_that_would_leave_their_folder_are_refused() {
        for name in ["", "..", "a/b", "A", "-a", &"a".repeat(25)] {
            let refused = ClusterSpec::new(name).validate().unwrap_err().to_string();
            assert!(refused.contains("--cluster"), "{refused}");
        }
        ClusterSpec::new("dev-2").validate().unwrap();
        let none = ClusterSpec {
            nodes: 0,
            ..ClusterSpec::new("dev")
        };
        assert!(none.validate().unwrap_err().to_string().contains("--nodes is 0"));
    }

    #[test]
    fn control_groups_differ_by_name_and_by_folder() {
        let names = [("a", "/x/a"), ("a", "/y/a"), ("a-1", "/x/a-1")]
            .map(|(name, folder)| cgroup_prefix(name, Path::new(folder)));
        assert!(names[0].starts_with("metricsstack-e2e-a-"));
        assert!(names[0] != names[1] && !names[2].starts_with(&names[0]) && !names[0].starts_with(&names[2]));
    }
}
