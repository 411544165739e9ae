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
    /// Whether loopback addresses may be dialled.
    pub loopback: bool,
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
                message: format!("{} is no DNS name", Shown(name)),
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
                if host.may_be_dialled(self.loopback) {
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
                let value = Shown(value);
                format!("the Node's {kind} {value} is no address of a kubelet and is never dialled")
            },
        );
        Err(NodeError {
            class: ErrorClass::NoAddress,
            message,
        })
    }
}

impl Host {
    /// Whether it may be looked up and dialled, as far as can be told from it alone.
    fn may_be_dialled(&self, loopback: bool) -> bool {
        match self {
            // `localhost` and its like are told by what they resolve to.
            Self::Name(name) => ServerName::try_from(&**name).is_ok(),
            Self::Ip(ip) => may_be_a_kubelet(*ip, loopback),
        }
    }
}

/// Whether an address can be that of a kubelet: not this pod itself, nor a service beside it (a cloud's metadata
/// server), nor many at once.
fn may_be_a_kubelet(ip: IpAddr, loopback: bool) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            (loopback || !ip.is_loopback())
                && !(ip.is_unspecified()
                    || ip.is_link_local()
                    || ip.is_multicast()
                    || ip == Ipv4Addr::BROADCAST)
        }
        IpAddr::V6(ip) => {
            (loopback || !ip.is_loopback())
                && !(ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast())
        }
    }
}

/// What is never dialled, whatever a Node says. A node writes its own addresses and port, and names resolve to what
/// somebody else says: this is asked of every address once it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Whether loopback addresses may be dialled: benchmarks and tests need it.
    pub loopback: bool,
    /// API servers, as host and port: what is sent to a kubelet must not reach them in a kubelet's name.
    pub api_servers: Vec<(Host, u16)>,
}

impl Guard {
    /// Those of `found` that may be dialled at `port`. `api_servers` are the addresses that those of the API servers
    /// whose port it is have now.
    #[must_use]
    pub fn pass(&self, found: &[IpAddr], api_servers: &[IpAddr]) -> Vec<IpAddr> {
        let ours = |ip: &IpAddr| {
            api_servers
                .iter()
                .any(|api| api.to_canonical() == ip.to_canonical())
        };
        found
            .iter()
            .copied()
            .filter(|ip| may_be_a_kubelet(*ip, self.loopback) && !ours(ip))
            .collect()
    }

    /// The API servers that listen on that port.
    pub fn api_servers_at(&self, port: u16) -> impl Iterator<Item = &Host> {
        let at = self.api_servers.iter().filter(move |(_, at)| *at == port);
        at.map(|(host, _)| host)
    }
}

impl From<&str> for Host {
    fn from(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        bare.unwrap_or(text)
            .parse()
            .map_or_else(|_| Self::Name(text.into()), Self::Ip)
    }
}

/// What a Node says of itself, quoted and cut to what a log line can bear.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 100;
        let mut chars = self.0.char_indices();
        match chars.nth(LONGEST).and_then(|(at, _)| self.0.split_at_checked(at)) {
            Some((start, _)) => write!(f, "{start:?}..."),
            None => write!(f, "{:?}", self.0),
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
            loopback: false,
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
            "no name at all",
        ] {
            let kind = if address.contains(' ') {
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
    fn what_names_resolve_to_is_looked_at_too() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let found = [
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "10.0.0.1",
            "::ffff:10.0.0.2",
            "fd00::1",
        ]
        .map(ip);
        let guard = Guard {
            loopback: false,
            api_servers: vec![(Host::from("10.0.0.2"), 6443), (Host::from("[fd00::1]"), 443)],
        };
        let at = |port| {
            let api: Vec<_> = guard
                .api_servers_at(port)
                .map(|host| match host {
                    Host::Ip(ip) => *ip,
                    Host::Name(name) => panic!("{name}"),
                })
                .collect();
            guard.pass(&found, &api)
        };
        assert_eq!(at(10250), ["10.0.0.1", "::ffff:10.0.0.2", "fd00::1"].map(ip));
        assert_eq!(at(6443), ["10.0.0.1", "fd00::1"].map(ip));
        assert_eq!(at(443), ["10.0.0.1", "::ffff:10.0.0.2"].map(ip));
        let loopback = Guard {
            loopback: true,
            ..Guard::default()
        };
        assert_eq!(loopback.pass(&found[..3], &[]), ["127.0.0.1", "::1"].map(ip));
    }

    #[test]
    fn what_a_node_says_is_quoted_and_cut() {
        let long = "\u{e9}\n ".repeat(4000);
        let error = choose(&rules("Hostname"), &[("Hostname", &long)], 0).unwrap_err();
        assert!(error.len() < 600 && !error.contains('\n'), "{error}");
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
