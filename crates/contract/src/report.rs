//! The node report: what metrics-api knows about every node it scrapes, as JSON at
//! [`DEBUG_NODES_PATH`](crate::names::DEBUG_NODES_PATH). The operator turns it into conditions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// All nodes, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// One entry a node that metrics-api is told to scrape.
    pub nodes: Vec<NodeState>,
    /// The last client that named a user as kube-apiserver's front proxy does and was not believed; absent if there was
    /// none in the last minutes. Anybody who reaches the port can cause one: it explains reads that fail, and nothing
    /// else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front_proxy: Option<FrontProxyRefusal>,
    /// The certificates of the front proxies whose requests came in the last minutes, the first to end first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub front_proxy_certificates: Vec<FrontProxyCertificate>,
}

/// See [`NodeReport::front_proxy_certificates`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontProxyCertificate {
    /// Its common name.
    pub common_name: String,
    /// When it begins, RFC 3339.
    pub not_before: String,
    /// When it ends, RFC 3339.
    pub not_after: String,
}

/// See [`NodeReport::front_proxy`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontProxyRefusal {
    /// What was wrong with its certificate.
    pub fault: FrontProxyFault,
    /// The same in one line.
    pub message: String,
    /// When, RFC 3339.
    pub at: String,
}

/// What is wrong with a front-proxy certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FrontProxyFault {
    /// It does not lead to the authority that kube-apiserver publishes for front proxies.
    UnknownAuthority,
    /// That authority has expired.
    AuthorityExpired,
    /// It has expired or is not valid yet.
    Expired,
    /// It is not for client authentication.
    WrongUsage,
    /// Its common name is not among those that kube-apiserver publishes.
    NameNotAllowed,
    /// Anything else.
    #[serde(other)]
    Other,
}

impl FrontProxyFault {
    /// Each of them, in order of declaration.
    pub const ALL: [Self; 6] = [
        Self::UnknownAuthority,
        Self::AuthorityExpired,
        Self::Expired,
        Self::WrongUsage,
        Self::NameNotAllowed,
        Self::Other,
    ];
}

/// One node as this replica of metrics-api sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// Name of the Node.
    pub name: String,
    /// `host:port` that was dialled last; absent while the Node has no usable address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How the kubelet's serving certificate was judged at the last handshake.
    pub tls: TlsState,
    /// When the last good answer arrived, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<String>,
    /// When the last attempt ended, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<String>,
    /// How long the last attempt took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// Where the usages come from; absent before the first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Why the last attempt failed; absent when it succeeded or none was made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<NodeError>,
}

/// Why a node could not be scraped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeError {
    /// The kind of failure.
    pub class: ErrorClass,
    /// One sentence for a person. Never contains what the kubelet sent.
    pub message: String,
}

/// What of a kubelet is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Source {
    /// `/metrics/resource`, or what the Node names in its place.
    #[default]
    ResourceMetrics,
    /// `/stats/summary`.
    Summary,
}

impl Source {
    /// The name as it is serialized.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ResourceMetrics => "ResourceMetrics",
            Self::Summary => "Summary",
        }
    }
}

/// How a kubelet's serving certificate was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TlsState {
    /// No handshake yet.
    #[default]
    Unknown,
    /// It chains to the cluster's CA and names the address.
    Verified,
    /// Its public key is the one recorded at first use.
    Pinned,
    /// Nobody looked: mode `Insecure`.
    Insecure,
    /// It was refused; the error says why.
    Refused,
}

macro_rules! error_classes {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The closed set of reasons why a node could not be scraped. Its names are metric labels, log fields
        /// and condition reasons.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum ErrorClass { $($(#[$doc])* $name,)* }

        impl ErrorClass {
            /// Every class, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name as it is serialized.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

error_classes! {
    /// The Node has no address of the wanted types, or only ones that are never dialled.
    NoAddress,
    /// The Node's name does not resolve to an address.
    NameNotResolved,
    /// The connection could not be made or broke: refused, no route, reset.
    Unreachable,
    /// No complete answer within the request timeout.
    Timeout,
    /// The certificate does not chain to the cluster's CA (kubeadm's self-signed default, in mode `Verify`).
    TlsUnknownAuthority,
    /// The certificate chains, but is not for the address that was dialled.
    TlsNameMismatch,
    /// The certificate chains, but is expired or not yet valid.
    TlsExpired,
    /// The certificate chains, but is not for server authentication, or is otherwise unusable.
    TlsInvalid,
    /// The public key is not the one recorded for this Node at first use.
    TlsKeyChanged,
    /// This Node was verified before and now shows a certificate that does not chain to the cluster's CA.
    TlsDowngrade,
    /// The record of this Node's key could not be read or written, so it was not trusted.
    TlsRecordUnavailable,
    /// The handshake failed for another reason.
    TlsHandshake,
    /// There is no token to show to the kubelet.
    TokenUnavailable,
    /// The kubelet answered 401: it does not know our token or certificate.
    Unauthorized,
    /// The kubelet answered 403: our identity lacks `get` on `nodes/metrics`.
    Forbidden,
    /// The kubelet has no `/metrics/resource`, and answered 403 for `/stats/summary`, which stands in for it: our
    /// identity lacks `get` on `nodes/stats`.
    SummaryForbidden,
    /// The kubelet answered 404: it does not serve this path.
    NotFound,
    /// The kubelet answered another status than 200.
    BadStatus,
    /// The answer was larger than the limit, or named more containers than any node runs.
    TooLarge,
    /// The answer was no resource metrics exposition at all.
    Malformed,
    /// The kubelet says itself that it could not collect everything. What it did collect is answered.
    KubeletError,
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_names_are_what_serde_writes() {
        for class in ErrorClass::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        }
    }

    #[test]
    fn absent_fields_are_left_out_and_may_be_absent() {
        for source in [Source::ResourceMetrics, Source::Summary] {
            assert_eq!(serde_json::to_value(source).unwrap(), source.as_str());
        }
        let json = r#"{"nodes":[{"name":"a","tls":"Pinned"}]}"#;
        let report: NodeReport = serde_json::from_str(json).unwrap();
        assert_eq!(report.nodes[0].tls, TlsState::Pinned);
        assert_eq!(serde_json::to_string(&report).unwrap(), json);
    }
}
