//! Where a Node's kubelet is dialled. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use contract::report::{ErrorClass, NodeError};
use rustls::pki_types::ServerName;

/// Kinds of addresses that a Node can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "these are Kubernetes' own names")]
pub enum AddressType {
    Hostname,
    InternalDNS,
    InternalIP,
    ExternalDNS,
    ExternalIP,
}

impl AddressType {
    /// All kinds, in metrics-server's order of preference.
    pub const ALL: [Self; 5] = [
        Self::Hostname,
        Self::InternalDNS,
        Self::InternalIP,
        Self::ExternalDNS,
        Self::ExternalIP,
    ];

    /// The name in `status.addresses`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hostname => "Hostname",
            Self::InternalDNS => "InternalDNS",
            Self::InternalIP => "InternalIP",
            Self::ExternalDNS => "ExternalDNS",
            Self::ExternalIP => "ExternalIP",
        }
    }
}

impl FromStr for AddressType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::as_str).join(", ");
                format!("\"{text}\" is no address type of a Node: expected one or more of {known}")
            })
    }
}

/// Which address and port of a Node to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRules {
    /// Types, preferred first.
    pub types: Vec<AddressType>,
    /// Port of every kubelet, or of those whose Node names none.
    pub port: u16,
    /// Whether the port in the Node's status comes first.
    pub use_node_status_port: bool,
}

/// What is dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Address or name.
    pub host: Host,
    /// Port.
    pub port: u16,
}

/// An address or a name that resolves to one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Dialled as it is.
    Ip(IpAddr),
    /// Resolved at each dial.
    Name(Box<str>),
}

impl Endpoint {
    /// What the serving certificate has to be for.
    pub fn server_name(&self) -> Result<ServerName<'static>, NodeError> {
        match &self.host {
            Host::Ip(ip) => Ok(ServerName::IpAddress((*ip).into())),
            Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|_| NodeError {
                class: ErrorClass::NoAddress,
                message: format!("{name:?} is no DNS name"),
            }),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl AddressRules {
    /// The endpoint of a Node with these addresses (type and value) and this port in its status (0 for none).
    ///
    /// A node writes its own addresses, so those that would lead back to this pod or to a link-local service
    /// (a cloud's metadata server) are passed over.
    pub fn choose<'a>(
        &self,
        addresses: &(impl Iterator<Item = (&'a str, &'a str)> + Clone),
        status_port: u16,
    ) -> Result<Endpoint, NodeError> {
        let port = if self.use_node_status_port && status_port != 0 {
            status_port
        } else {
            self.port
        };
        let mut passed_over = None;
        for wanted in &self.types {
            for (_, value) in addresses.clone().filter(|(kind, _)| *kind == wanted.as_str()) {
                let host = value.parse().map_or_else(|_| Host::Name(value.into()), Host::Ip);
                if host.may_be_dialled() {
                    return Ok(Endpoint { host, port });
                }
                passed_over = passed_over.or(Some((wanted, value)));
            }
        }
        let message = passed_over.map_or_else(
            || {
                let types: Vec<_> = self.types.iter().map(|kind| kind.as_str()).collect();
                format!("the Node has no address of type {}", types.join(", "))
            },
            |(kind, value)| {
                let kind = kind.as_str();
                format!("the Node's {kind} {value:?} is no address of a kubelet and is never dialled")
            },
        );
        Err(NodeError {
            class: ErrorClass::NoAddress,
            message,
        })
    }
}

impl Host {
    fn may_be_dialled(&self) -> bool {
        match self {
            Self::Name(name) => {
                &**name != "localhost"
                    && !name.ends_with(".localhost")
                    && ServerName::try_from(&**name).is_ok()
            }
            Self::Ip(ip) => match ip.to_canonical() {
                IpAddr::V4(ip) => {
                    !(ip.is_loopback()
                        || ip.is_unspecified()
                        || ip.is_link_local()
                        || ip.is_multicast()
                        || ip == Ipv4Addr::BROADCAST)
                }
                IpAddr::V6(ip) => {
                    !(ip.is_loopback()
                        || ip.is_unspecified()
                        || ip.is_unicast_link_local()
                        || ip.is_multicast())
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(types: &str) -> AddressRules {
        let types = types.split(',').map(|kind| kind.parse().unwrap()).collect();
        AddressRules {
            types,
            port: 10250,
            use_node_status_port: true,
        }
    }

    fn choose(rules: &AddressRules, addresses: &[(&str, &str)], port: u16) -> Result<String, String> {
        let chosen = rules.choose(&addresses.iter().copied(), port);
        chosen
            .map(|endpoint| endpoint.to_string())
            .map_err(|error| error.message)
    }

    #[test]
    fn the_first_address_of_the_first_type_that_is_there_wins() {
        let addresses = [
            ("Hostname", "node-a"),
            ("InternalIP", "10.0.0.1"),
            ("InternalIP", "10.0.0.2"),
        ];
        assert_eq!(
            choose(&rules("InternalIP,Hostname"), &addresses, 0).unwrap(),
            "10.0.0.1:10250"
        );
        assert_eq!(
            choose(&rules("ExternalIP,Hostname"), &addresses, 0).unwrap(),
            "node-a:10250"
        );
        let v6 = [("InternalIP", "fd00::1")];
        assert_eq!(
            choose(&rules("InternalIP"), &v6, 10255).unwrap(),
            "[fd00::1]:10255"
        );
    }

    #[test]
    fn the_port_of_the_status_counts_only_when_it_is_wanted() {
        let fixed = AddressRules {
            use_node_status_port: false,
            ..rules("InternalIP")
        };
        assert_eq!(
            choose(&fixed, &[("InternalIP", "10.0.0.1")], 4444).unwrap(),
            "10.0.0.1:10250"
        );
    }

    #[test]
    fn addresses_that_lead_back_here_are_passed_over() {
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "fe80::1",
            "localhost",
        ] {
            let kind = if address == "localhost" {
                "Hostname"
            } else {
                "InternalIP"
            };
            let error = choose(&rules("InternalIP,Hostname"), &[(kind, address)], 0).unwrap_err();
            assert!(
                error.contains(address) && error.contains("never dialled"),
                "{error}"
            );
        }
        let second = [("InternalIP", "127.0.0.1"), ("ExternalIP", "192.0.2.1")];
        assert_eq!(
            choose(&rules("InternalIP,ExternalIP"), &second, 0).unwrap(),
            "192.0.2.1:10250"
        );
    }

    #[test]
    fn a_node_without_a_wanted_address_is_told_so() {
        let error = choose(&rules("InternalIP,ExternalIP"), &[("Hostname", "a")], 0).unwrap_err();
        assert_eq!(error, "the Node has no address of type InternalIP, ExternalIP");
    }

    #[test]
    fn unknown_types_are_refused_with_the_known_ones() {
        let error = "InternalIp".parse::<AddressType>().unwrap_err();
        assert!(
            error.contains("\"InternalIp\"") && error.contains("InternalIP"),
            "{error}"
        );
    }
}
