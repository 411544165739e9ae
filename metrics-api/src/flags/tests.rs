mod of_metrics_server;

use std::{ffi::OsString, path::PathBuf};

use clap::CommandFactory as _;
use extension_apiserver::{Authorities, FrontProxyFiles, TlsVersion};

use super::*;

fn parse(arguments: &[&str]) -> Result<Flags, String> {
    let all = std::iter::once("metrics-api").chain(arguments.iter().copied());
    Flags::try_parse_from(all).map_err(|error| error.to_string())
}

/// As the program does it.
fn settings(arguments: &[&str]) -> Result<Settings, String> {
    let sorted = sort(arguments).map_err(|error| error.to_string())?;
    let flags = Flags::try_parse_from(sorted.arguments).map_err(|error| error.to_string())?;
    Settings::new(flags, false).map_err(|error| error.to_string())
}

fn sort(arguments: &[&str]) -> Result<classes::Sorted, FlagError> {
    classes::sort(
        std::iter::once("metrics-api")
            .chain(arguments.iter().copied())
            .map(OsString::from),
    )
}

#[test]
fn the_command_is_sound() {
    Flags::command().debug_assert();
}

#[test]
fn what_the_operator_passes_is_understood() {
    let settings = settings(&[
        "--secure-port=10250",
        "--tls-cert-file=/etc/metrics-api/tls/tls.crt",
        "--tls-private-key-file=/etc/metrics-api/tls/tls.key",
        "--metric-resolution=30s",
        "--kubelet-tls-mode=Auto",
        "--kubelet-service-account=metrics-api-kubelet",
        "--log-level=debug",
        "--logging-format=json",
    ])
    .unwrap();
    assert_eq!(settings.tls_mode, TlsMode::Auto);
    assert_eq!(
        settings.credential,
        KubeletCredential::ServiceAccount("metrics-api-kubelet".to_owned())
    );
    assert_eq!(settings.resolution, Duration::from_secs(30));
    assert_eq!(settings.log_level, "debug");
}

#[test]
fn defaults_verify_and_take_the_port_of_the_node() {
    let settings = settings(&[]).unwrap();
    assert_eq!(settings.tls_mode, TlsMode::Verify);
    assert!(settings.addresses.use_node_status_port);
    assert_eq!(settings.addresses.port, 10250);
    assert_eq!(settings.resolution, Duration::from_secs(15));
}

#[test]
fn a_port_that_is_given_counts_unless_the_nodes_is_wanted_too() {
    let given = settings(&["--kubelet-port=10255"]).unwrap().addresses;
    assert_eq!((given.port, given.use_node_status_port), (10255, false));
    let both = settings(&["--kubelet-port=10255", "--kubelet-use-node-status-port"])
        .unwrap()
        .addresses;
    assert_eq!((both.port, both.use_node_status_port), (10255, true));
    let neither = settings(&["--kubelet-use-node-status-port=false"])
        .unwrap()
        .addresses;
    assert_eq!((neither.port, neither.use_node_status_port), (10250, false));
}

#[test]
fn of_two_values_the_later_counts() {
    assert_eq!(
        parse(&["--secure-port=1", "--secure-port=2"])
            .unwrap()
            .secure_port,
        2
    );
    assert!(
        !parse(&["--kubelet-insecure-tls", "--kubelet-insecure-tls=false"])
            .unwrap()
            .kubelet_insecure_tls
    );
}

#[test]
fn all_addresses_are_those_of_ipv6_too_where_there_is_any() {
    let flags = parse(&["--secure-port=10250"]).unwrap();
    assert_eq!(Settings::new(flags, true).unwrap().bind.to_string(), "[::]:10250");
    let one = parse(&["--bind-address=192.0.2.1"]).unwrap();
    assert_eq!(
        Settings::new(one, true).unwrap().bind.to_string(),
        "192.0.2.1:443"
    );
}

#[test]
fn what_is_wrong_is_named_with_what_was_found_and_what_is_expected() {
    let table: [(&[&str], &[&str]); 28] = [
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["--logtostderr"], &["--logtostderr"]),
        (&["--audit-policy-file=x"], &["--audit-policy-file", "audit log"]),
        (
            &["--tls-min-version=VersionTLS10"],
            &["--tls-min-version", "VersionTLS10", "VersionTLS12"],
        ),
        (&["--goaway-chance=0.5"], &["--goaway-chance", "0.5", "0.02"]),
        (
            &["--tls-sni-cert-key=a"],
            &["--tls-sni-cert-key", "a", "CERTIFICATE,KEY"],
        ),
        (
            &["--strict-transport-security-directives=max-age=x"],
            &["--strict-transport-security-directives", "max-age=x", "preload"],
        ),
        (
            &["--cors-allowed-origins=^https://a$,b.example"],
            &["--cors-allowed-origins", "b.example", "expected ^ or //"],
        ),
        (
            &["--cors-allowed-origins=^(a$"],
            &["--cors-allowed-origins", "^(a$", "unclosed group"],
        ),
        (
            &["--tls-curve-preferences=X25519"],
            &["--tls-curve-preferences", "X25519"],
        ),
        (
            &["--tls-curve-preferences=29,25"],
            &["--tls-curve-preferences", "25", "29 (X25519)"],
        ),
        (
            &["--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA"],
            &[
                "--tls-cipher-suites",
                "TLS_RSA_WITH_RC4_128_SHA",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ],
        ),
        (
            &["--deprecated-kubelet-completely-insecure"],
            &[
                "--deprecated-kubelet-completely-insecure",
                "--kubelet-insecure-tls",
            ],
        ),
        (&["--metric-resolution=15"], &["--metric-resolution", "15", "15s"]),
        (
            &["--metric-resolution=5s"],
            &["--metric-resolution", "5s", "at least 10s"],
        ),
        (
            &["--metric-resolution=10s"],
            &["--metric-resolution=10s", "--kubelet-request-timeout=10s"],
        ),
        (
            &["--kubelet-request-timeout=0s"],
            &["--kubelet-request-timeout", "0s"],
        ),
        (&["--kubelet-port=0"], &["--kubelet-port", "0", "1..=65535"]),
        (&["--kubelet-port=x"], &["--kubelet-port", "x"]),
        (
            &["--kubelet-preferred-address-types=InternalIP,Inner"],
            &["--kubelet-preferred-address-types", "Inner", "InternalDNS"],
        ),
        (
            &["--kubelet-tls-mode=auto"],
            &["--kubelet-tls-mode", "auto", "Auto, Verify, Insecure"],
        ),
        (
            &["--kubelet-insecure-tls", "--kubelet-tls-mode=Auto"],
            &["--kubelet-insecure-tls", "--kubelet-tls-mode=Auto"],
        ),
        (
            &["--kubelet-insecure-tls", "--kubelet-certificate-authority=ca"],
            &["--kubelet-insecure-tls", "--kubelet-certificate-authority"],
        ),
        (
            &["--node-selector=a in b"],
            &["--node-selector", "a in b", "expected: '('"],
        ),
        (&["-l", "=x"], &["--node-selector", "=x"]),
        (
            &["--kubelet-insecure-tls=yes"],
            &["--kubelet-insecure-tls", "yes", "true or false"],
        ),
        (&["--v=x"], &["--v", "x"]),
        (&["--tls-cert-file=a"], &["--tls-private-key-file"]),
    ];
    for (arguments, expected) in table {
        let error = settings(arguments).expect_err(&format!("{arguments:?}"));
        for part in expected {
            assert!(error.contains(part), "{arguments:?}: {part:?} is not in {error}");
        }
    }
}

#[test]
fn booleans_and_levels_are_those_of_go() {
    for (text, expected) in [
        ("1", true),
        ("t", true),
        ("T", true),
        ("TRUE", true),
        ("True", true),
        ("0", false),
        ("f", false),
        ("F", false),
        ("FALSE", false),
        ("False", false),
    ] {
        let flags = parse(&[&format!("--kubelet-insecure-tls={text}")]).unwrap();
        assert_eq!(flags.kubelet_insecure_tls, expected, "{text}");
    }
    assert_eq!(settings(&["--v=1000"]).unwrap().log_level, "trace");
}

#[test]
fn lists_add_up() {
    let settings = settings(&[
        "--kubelet-preferred-address-types=InternalIP,ExternalIP",
        "--kubelet-preferred-address-types=Hostname",
        "--authorization-always-allow-paths=/metrics",
    ])
    .unwrap();
    assert_eq!(
        settings.addresses.types,
        [
            AddressType::InternalIP,
            AddressType::ExternalIP,
            AddressType::Hostname
        ]
    );
    assert_eq!(settings.authorization.always_allow_paths, ["/metrics"]);
}

#[test]
fn how_is_served_and_who_is_trusted_is_handed_on() {
    let settings = settings(&[
        "--tls-min-version=VersionTLS13",
        "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_AES_128_GCM_SHA256",
        "--tls-sni-cert-key=c,k",
        "--tls-sni-cert-key=d,l:a.example,*.b.example",
        "--disable-http2-serving=false",
        "--goaway-chance=0.01",
        "--shutdown-send-retry-after=true",
        "--strict-transport-security-directives=max-age=31536000,includeSubDomains",
        "--client-ca-file=ca",
        "--requestheader-client-ca-file=proxy-ca",
        "--requestheader-allowed-names=front",
        "--authentication-skip-lookup",
        "--tls-curve-preferences=29,4588",
        "--permit-port-sharing",
        "--cors-allowed-origins=^https://a$",
        "--cors-allowed-origins=//b(:|$),//c(:|$)",
        "--authentication-kubeconfig=who",
        "--authorization-kubeconfig=what",
    ])
    .unwrap();
    assert!(settings.shares_port && settings.cors.is_some());
    assert_eq!(settings.tls.curve_preferences, [29, 4588]);
    assert_eq!(settings.authentication_kubeconfig, Some("who".into()));
    assert_eq!(settings.authorization_kubeconfig, Some("what".into()));
    assert_eq!(settings.tls.minimum, TlsVersion::V1_3);
    assert_eq!(
        settings.tls.cipher_suites,
        ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"]
    );
    let names: Vec<_> = settings
        .tls
        .by_name
        .iter()
        .map(|named| named.names.clone())
        .collect();
    assert_eq!(
        names,
        [vec![], vec!["a.example".to_owned(), "*.b.example".to_owned()]]
    );
    assert_eq!(settings.tls.by_name[1].key, PathBuf::from("l"));
    assert!(settings.limits.http2 && settings.limits.shutdown_send_retry_after);
    assert!((settings.limits.goaway_chance - 0.01).abs() < f64::EPSILON);
    assert_eq!(
        settings.strict_transport_security.unwrap(),
        "max-age=31536000; includeSubDomains"
    );
    let expected = Authorities {
        client_ca: Some("ca".into()),
        front_proxy: Some(FrontProxyFiles {
            allowed_names: vec!["front".to_owned()],
            ..FrontProxyFiles::new("proxy-ca")
        }),
        skip_lookup: true,
    };
    assert_eq!(settings.authorities, expected);
}

#[test]
fn the_end_can_be_delayed() {
    let limits = settings(&["--shutdown-delay-duration=7s", "--shutdown-drain-duration=1m"])
        .unwrap()
        .limits;
    assert_eq!(limits.shutdown_delay, Duration::from_secs(7));
    assert_eq!(limits.drain, Duration::from_mins(1));
}

#[test]
fn connections_end_by_age_unless_told_not_to() {
    for (flag, age) in [("1m", Some(Duration::from_mins(1))), ("0s", None)] {
        let limits = settings(&[&format!("--max-connection-age={flag}")])
            .unwrap()
            .limits;
        assert_eq!(limits.connection_age, age, "{flag}");
    }
}

#[test]
fn a_client_certificate_stands_alone_unless_a_service_account_is_named() {
    let pair = ["--kubelet-client-certificate=a", "--kubelet-client-key=b"];
    let alone = settings(&pair).unwrap();
    assert_eq!(alone.credential, KubeletCredential::None);
    let expected = Certificate {
        certificate: PathBuf::from("a"),
        key: PathBuf::from("b"),
    };
    assert_eq!(alone.client_certificate, Some(expected));
    let both = settings(&[pair[0], pair[1], "--kubelet-service-account=x"]).unwrap();
    assert_eq!(both.credential, KubeletCredential::ServiceAccount("x".to_owned()));
}

#[test]
fn the_help_is_as_committed() {
    insta::assert_snapshot!(Flags::command().term_width(100).render_long_help());
}
