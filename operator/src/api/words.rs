//! Words that a spec may use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares an enum whose values are spelled in a spec as in a flag.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$variant_meta])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// As it is spelled in a spec.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// When an image is pulled.
    ImagePullPolicy {
        /// At each start of a Pod.
        Always = "Always",
        /// When the node does not have it.
        IfNotPresent = "IfNotPresent",
        /// Never: the node must have it.
        Never = "Never",
    }
}

words! {
    /// What is read of a kubelet.
    #[derive(Default)]
    KubeletSource {
        /// Resource metrics, or the Summary API where there are none.
        #[default]
        Auto = "Auto",
        /// `/metrics/resource`.
        ResourceMetrics = "ResourceMetrics",
        /// `/stats/summary`.
        Summary = "Summary",
    }
}

words! {
    /// Whether something is made for the cluster's monitoring.
    #[derive(Default)]
    MonitoringMode {
        /// Where the cluster has the Prometheus operator's kinds.
        #[default]
        Auto = "Auto",
        /// Never.
        Disabled = "Disabled",
    }
}

words! {
    /// Whether there is a `NetworkPolicy`.
    #[derive(Default)]
    NetworkPolicyMode {
        /// There is none.
        #[default]
        Disabled = "Disabled",
        /// There is one.
        Enabled = "Enabled",
    }
}

words! {
    /// Who keeps the serving certificate.
    #[derive(Default)]
    CertificateIssuer {
        /// The operator.
        #[default]
        Managed = "Managed",
        /// Somebody else, in a Secret.
        Secret = "Secret",
    }
}

words! {
    /// What becomes of an `APIService` of somebody else.
    #[derive(Default)]
    AdoptPolicy {
        /// It is left alone.
        #[default]
        Never = "Never",
        /// It is taken over if nobody answers for it.
        Unmanaged = "Unmanaged",
        /// It is taken over.
        Always = "Always",
    }
}

words! {
    /// How much is logged.
    LogLevel {
        /// What someone must act on.
        Error = "error",
        /// And what is odd.
        Warn = "warn",
        /// And what happens.
        Info = "info",
        /// And why.
        Debug = "debug",
        /// And everything else.
        Trace = "trace",
    }
}

words! {
    /// How a log line looks.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// Type of a Node's address.
    AddressType {
        /// An IP address within the cluster's network.
        InternalIp = "InternalIP",
        /// The name of the machine.
        Hostname = "Hostname",
        /// A DNS name that resolves within the cluster's network.
        InternalDns = "InternalDNS",
        /// A DNS name that resolves from outside.
        ExternalDns = "ExternalDNS",
        /// An IP address that is reached from outside.
        ExternalIp = "ExternalIP",
    }
}

words! {
    /// How a kubelet proves who it is.
    TlsMode {
        /// Its certificate chains, or is pinned on first use.
        Auto = "Auto",
        /// Its certificate chains.
        Verify = "Verify",
        /// Not at all.
        Insecure = "Insecure",
    }
}
