//! Who a client is, as a function of what is published, the certificate chain, the headers and the time.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::certificates::{Authority, Leaf};
use super::published;
use crate::authn::config::AuthenticationConfig;
use crate::authn::peer::{Judgement, Peer, judge};
use crate::authn::watch::Published;
use crate::authn::{Presented, User, headers};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

pub(super) fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

pub(super) fn unix(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(at.as_second().try_into().unwrap()))
}

fn header_map(lines: &[(&str, &str)]) -> HeaderMap {
    let parse = |&(name, value): &(&str, &str)| {
        let name: HeaderName = name.parse().unwrap();
        (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    lines.iter().map(parse).collect()
}

/// What `chain` and `headers` say at `at`.
fn present(
    config: &AuthenticationConfig,
    chain: &[CertificateDer<'_>],
    headers: &HeaderMap,
    at: Timestamp,
) -> Presented {
    headers::identify(config, &judge(config, chain, unix(at)), headers)
}

fn user(name: &str, groups: &[&str]) -> Presented {
    Presented::User(User {
        name: name.to_owned(),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        ..User::default()
    })
}

fn reason(presented: Presented) -> String {
    match presented {
        Presented::Refused { reason, .. } => reason,
        other => panic!("not refused: {other:?}"),
    }
}

struct World {
    clients: Authority,
    proxies: Authority,
    config: AuthenticationConfig,
    jane: HeaderMap,
}

impl World {
    fn new() -> Self {
        let (clients, proxies) = (Authority::new("kubernetes"), Authority::new("front-proxy-ca"));
        Self {
            config: AuthenticationConfig::parse(&published(Some(&clients), Some(&proxies))).unwrap(),
            clients,
            proxies,
            jane: header_map(&[("X-Remote-User", "jane"), ("X-Remote-Group", "devs")]),
        }
    }

    fn with(data: &BTreeMap<String, String>) -> AuthenticationConfig {
        AuthenticationConfig::parse(data).unwrap()
    }

    fn now(&self, leaf: &Leaf, headers: &HeaderMap) -> Presented {
        present(&self.config, &leaf.chain(), headers, now())
    }
}

#[test]
fn the_front_proxy_speaks_for_others() {
    let world = World::new();
    let proxy = world.proxies.client("front-proxy-client");
    let jane = user("jane", &["devs", "system:authenticated"]);
    assert_eq!(world.now(&proxy, &world.jane), jane);

    let anonymous = header_map(&[
        ("X-Remote-User", "system:anonymous"),
        ("X-Remote-Group", "system:unauthenticated"),
    ]);
    let expected = user("system:anonymous", &["system:unauthenticated"]);
    assert_eq!(world.now(&proxy, &anonymous), expected);

    let all = header_map(&[
        ("x-remote-user", "zo\u{eb}"),
        ("x-remote-group", "b"),
        ("x-remote-group", "a"),
        ("x-remote-group", ""),
        ("x-remote-extra-acme.com%2fproject", "p"),
        ("X-Remote-Extra-Scopes", "view"),
        ("x-remote-extra-scopes", "edit"),
        ("x-remote-extra-100%", "odd"),
        ("x-remote-extra-", "no key"),
        ("x-remote-uid", "not configured"),
    ]);
    let Presented::User(user) = world.now(&proxy, &all) else {
        panic!("not a user");
    };
    insta::assert_debug_snapshot!(user);
}

#[test]
fn headers_alone_are_nothing() {
    let world = World::new();
    let generation = Published {
        generation: 1,
        config: world.config,
    };
    let presented = Peer::new(&[]).present(&generation, &world.jane, unix(now()));
    assert_eq!(presented, Presented::Nothing);
}

#[test]
fn a_chain_too_long_to_keep_is_refused() {
    let world = World::new();
    let generation = Published {
        generation: 1,
        config: World::with(&published(Some(&world.clients), Some(&world.proxies))),
    };
    let leaf = world.proxies.client("front-proxy-client").chain();
    let with = |more: Vec<CertificateDer<'static>>| {
        let chain: Vec<_> = leaf.iter().cloned().chain(more).collect();
        let peer = Peer::new(&chain);
        let presented = peer.present(&generation, &world.jane, unix(now()));
        (presented, peer.is_front_proxy())
    };
    let jane = user("jane", &["devs", "system:authenticated"]);
    assert_eq!(with(vec![leaf[0].clone(); 7]), (jane, true));
    for more in [
        vec![leaf[0].clone(); 8],
        vec![CertificateDer::from(vec![0; 16 * 1024])],
    ] {
        let (presented, front_proxy) = with(more);
        assert!(reason(presented).contains("longer than 8 certificates") && !front_proxy);
    }
}

#[test]
fn a_certificate_that_proves_nothing_is_refused_with_its_cause() {
    let world = World::new();
    let stranger = Authority::new("front-proxy-ca");
    let name = "front-proxy-client";
    for (leaf, cause) in [
        (stranger.client(name), "UnknownIssuer"),
        (world.proxies.leaf(name).ends(now() - HOUR).client(), "Expired"),
        (
            world.proxies.leaf(name).begins(now() + HOUR).client(),
            "NotValidYet",
        ),
        (
            world.proxies.client("somebody"),
            "not in requestheader-allowed-names",
        ),
        (world.proxies.client(""), "not in requestheader-allowed-names"),
        (world.proxies.server(name), "required: ClientAuth"),
        (world.clients.leaf("").client(), "no common name"),
    ] {
        let found = reason(world.now(&leaf, &world.jane));
        assert!(found.contains(cause), "{found:?} should contain {cause:?}");
    }
    let garbage = [CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])];
    let found = reason(present(&world.config, &garbage, &world.jane, now()));
    assert!(found.contains("cannot be decoded"), "{found}");
}

#[test]
fn any_name_is_allowed_when_none_is_listed() {
    let world = World::new();
    for empty in ["[]", "null", ""] {
        let mut data = published(Some(&world.clients), Some(&world.proxies));
        data.insert("requestheader-allowed-names".to_owned(), empty.to_owned());
        let proxy = world.proxies.client("whoever");
        let presented = present(&World::with(&data), &proxy.chain(), &world.jane, now());
        assert_eq!(
            presented,
            user("jane", &["devs", "system:authenticated"]),
            "{empty:?}"
        );
    }
}

#[test]
fn a_client_certificate_is_its_own_user_whatever_the_headers_say() {
    let world = World::new();
    let leaf = world
        .clients
        .leaf("admin")
        .organization("system:masters")
        .client();
    let admin = user("admin", &["system:masters", "system:authenticated"]);
    assert_eq!(world.now(&leaf, &HeaderMap::new()), admin);
    assert_eq!(world.now(&leaf, &world.jane), admin);
    // A client may take the proxy's name; it has not the proxy's authority.
    let namesake = world.clients.client("front-proxy-client");
    let itself = user("front-proxy-client", &["system:authenticated"]);
    assert_eq!(world.now(&namesake, &world.jane), itself);
}

#[test]
fn without_a_client_authority_only_the_front_proxy_is_known() {
    let world = World::new();
    let config = World::with(&published(None, Some(&world.proxies)));
    let proxy = world.proxies.client("front-proxy-client");
    let presented = present(&config, &proxy.chain(), &world.jane, now());
    assert_eq!(presented, user("jane", &["devs", "system:authenticated"]));
    let admin = world.clients.client("admin");
    let found = reason(present(&config, &admin.chain(), &HeaderMap::new(), now()));
    assert!(found.contains("no authority of client certificates"), "{found}");

    let nothing = AuthenticationConfig::default();
    for leaf in [proxy, admin] {
        reason(present(&nothing, &leaf.chain(), &world.jane, now()));
    }
}

#[test]
fn one_authority_for_both_tells_proxy_and_clients_apart_by_name() {
    let world = World::new();
    let config = World::with(&published(Some(&world.clients), Some(&world.clients)));
    let proxy = world.clients.client("front-proxy-client");
    let presented = present(&config, &proxy.chain(), &world.jane, now());
    assert_eq!(presented, user("jane", &["devs", "system:authenticated"]));
    let admin = world.clients.client("admin");
    let presented = present(&config, &admin.chain(), &world.jane, now());
    assert_eq!(presented, user("admin", &["system:authenticated"]));
}

#[test]
fn ambiguous_or_broken_headers_are_refused_even_from_the_front_proxy() {
    let world = World::new();
    let proxy = world.proxies.client("front-proxy-client");
    let twice = header_map(&[("X-Remote-User", "jane"), ("x-remote-user", "root")]);
    assert!(reason(world.now(&proxy, &twice)).contains("more than one value"));
    let mut broken = world.jane.clone();
    broken.insert("x-remote-group", HeaderValue::from_bytes(b"\xff").unwrap());
    assert!(reason(world.now(&proxy, &broken)).contains("not UTF-8"));
    for unnamed in [
        header_map(&[]),
        header_map(&[("x-remote-user", "")]),
        header_map(&[
            ("x_remote_user", "jane"),
            ("x-remote-users", "jane"),
            ("x-remote-group", "g"),
        ]),
    ] {
        assert!(reason(world.now(&proxy, &unnamed)).contains("named no user"));
    }
    // The same name twice is no contradiction.
    let same = header_map(&[("x-remote-user", "jane"), ("x-remote-user", "jane")]);
    assert_eq!(world.now(&proxy, &same), user("jane", &["system:authenticated"]));
}

#[test]
fn the_first_username_header_with_a_value_counts() {
    let world = World::new();
    let mut data = published(None, Some(&world.proxies));
    let names = r#"["X-User", "X-Remote-User"]"#;
    data.insert("requestheader-username-headers".to_owned(), names.to_owned());
    data.insert(
        "requestheader-uid-headers".to_owned(),
        r#"["X-Remote-Uid"]"#.to_owned(),
    );
    let config = World::with(&data);
    let chain = world.proxies.client("front-proxy-client").chain();
    for (first, expected) in [("joe", "joe"), ("", "jane")] {
        let mut headers = world.jane.clone();
        headers.insert("x-user", first.parse().unwrap());
        headers.insert("x-remote-uid", "u-1".parse().unwrap());
        let Presented::User(user) = present(&config, &chain, &headers, now()) else {
            panic!("not a user");
        };
        assert_eq!((user.name.as_str(), user.uid.as_str()), (expected, "u-1"));
    }
}

#[test]
fn a_connection_is_judged_anew_when_authorities_or_time_change() {
    let world = World::new();
    let end = now() + SignedDuration::from_secs(30);
    let ending = world.proxies.leaf("front-proxy-client").ends(end).client();
    let peer = Peer::new(&ending.chain());
    let jane = user("jane", &["devs", "system:authenticated"]);
    let first = Published {
        generation: 1,
        config: World::with(&published(None, Some(&world.proxies))),
    };
    assert_eq!(peer.present(&first, &world.jane, unix(now())), jane);
    assert_eq!(peer.present(&first, &world.jane, unix(end)), jane);
    let after = end + SignedDuration::from_secs(1);
    reason(peer.present(&first, &world.jane, unix(after)));

    let peer = Peer::new(&world.proxies.client("front-proxy-client").chain());
    assert_eq!(peer.present(&first, &world.jane, unix(now())), jane);
    let removed = Published {
        generation: 2,
        config: World::with(&published(None, Some(&Authority::new("next")))),
    };
    reason(peer.present(&removed, &world.jane, unix(now())));
    assert_eq!(peer.present(&first, &world.jane, unix(now())), jane);
    // An authority's own end is seen within the minute that a judgement is kept.
    let much_later = "2041-01-01T00:00:00Z".parse().unwrap();
    reason(peer.present(&first, &world.jane, unix(much_later)));
}

proptest! {
    /// Whatever a client sends beside its name, the name stays and nothing panics.
    #[test]
    fn any_headers_give_the_named_user_or_a_refusal(
        lines in proptest::collection::vec(("x-remote-(user|group|extra-[a-z%0-9]{0,6})|[a-z]{1,8}", "[ -~]{0,12}"), 0..8),
        bytes in proptest::collection::vec(32_u8..=255, 0..12),
    ) {
        let config = fixed();
        let mut headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            headers.append("x-remote-group", value);
        }
        let names: Vec<_> = headers.get_all("x-remote-user").iter().map(HeaderValue::as_bytes).collect();
        match headers::identify(&config.0, &config.1, &headers) {
            Presented::User(user) => {
                prop_assert!(!user.name.is_empty() && names.contains(&user.name.as_bytes()));
                prop_assert!(user.groups.iter().all(|group| !group.is_empty()));
                prop_assert!(user.extra.keys().all(|key| !key.is_empty()));
            }
            Presented::Refused { reason, .. } => prop_assert!(!reason.is_empty()),
            Presented::Nothing => prop_assert!(false, "a certificate is something"),
        }
    }
}

/// The front proxy's judged certificate, made once.
pub(super) fn fixed() -> &'static (AuthenticationConfig, Judgement) {
    static FIXED: LazyLock<(AuthenticationConfig, Judgement)> = LazyLock::new(|| {
        let config = World::with(&published(None, Some(Authority::fixed())));
        let proxy = Authority::fixed().client("front-proxy-client");
        let judgement = judge(&config, &proxy.chain(), unix(now()));
        assert!(judgement.front_proxy.is_ok());
        (config, judgement)
    });
    &FIXED
}
