//! What becomes of each flag of metrics-server.

use std::collections::BTreeSet;

use super::*;
use crate::flags::classes::{Class, KNOWN};

/// Every flag of metrics-server 0.9, as its `--help` names them (docs/command-line-flags.txt of its repository).
const THEIRS: &str = include_str!("../../../tests/fixtures/metrics-server-flags.txt");
const COMPATIBILITY_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");

#[test]
fn every_flag_of_metrics_server_is_in_exactly_one_class() {
    let names: Vec<_> = KNOWN.iter().map(|known| known.name).collect();
    let unique: BTreeSet<_> = names.iter().copied().collect();
    assert_eq!(names.len(), unique.len(), "none comes twice");
    let theirs: BTreeSet<_> = THEIRS.lines().collect();
    assert_eq!(unique, theirs);
}

#[test]
fn what_is_honoured_is_a_flag_of_ours_and_nothing_else_is() {
    let command = Flags::command();
    for known in KNOWN {
        // clap adds the version by itself.
        let ours = command
            .get_arguments()
            .find(|argument| argument.get_long() == Some(known.name));
        let honoured = matches!(known.class, Class::Honoured(_));
        assert_eq!(
            ours.is_some() || known.name == "version",
            honoured,
            "{}",
            known.name
        );
        if let Some(ours) = ours {
            let takes_value = !ours.is_require_equals_set();
            assert_eq!(takes_value, known.takes_value, "{}", known.name);
        }
    }
}

#[test]
fn what_has_no_effect_is_taken_out_with_its_value() {
    let sorted = sort(&[
        "--profiling=false",
        "--log-flush-frequency",
        "--v",
        "--v",
        "--storage-initialization-timeout",
        "-l",
        "--min-request-timeout=1",
        "--",
        "--profiling",
    ])
    .unwrap();
    assert_eq!(
        sorted.arguments,
        [
            "metrics-api",
            "--v",
            "--storage-initialization-timeout",
            "-l",
            "--",
            "--profiling"
        ]
    );
    let ignored: Vec<_> = sorted.ignored.iter().map(|(flag, _)| *flag).collect();
    assert_eq!(
        ignored,
        ["profiling", "log-flush-frequency", "min-request-timeout"]
    );
}

#[test]
fn compatibility_md_has_the_table_of_flags() {
    const BEGIN: &str = "<!-- made from metrics-api/src/flags/classes.rs -->\n";
    const END: &str = "<!-- end -->\n";
    let committed = std::fs::read_to_string(COMPATIBILITY_FILE).unwrap_or_default();
    let (before, rest) = committed.split_once(BEGIN).expect("the mark before the table");
    let (_, after) = rest.split_once(END).expect("the mark after the table");
    let current = format!("{before}{BEGIN}{}{END}{after}", classes::markdown());
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(COMPATIBILITY_FILE, &current).unwrap();
    } else {
        assert!(
            committed == current,
            "docs/compatibility.md is stale; renew it with\nINSTA_UPDATE=always cargo test -p metrics-api compatibility"
        );
    }
}

#[test]
fn metrics_servers_own_manifests_are_understood() {
    let settings = settings(&[
        "--cert-dir=/tmp",
        "--secure-port=10250",
        "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
        "--kubelet-use-node-status-port",
        "--metric-resolution=15s",
        "--kubelet-insecure-tls",
        "--v=4",
        "--node-selector=metrics-server-skip!=true",
    ])
    .unwrap();
    assert_eq!(settings.tls_mode, TlsMode::Insecure);
    assert_eq!(settings.bind.to_string(), "0.0.0.0:10250");
    assert_eq!(
        settings.addresses.types,
        [
            AddressType::InternalIP,
            AddressType::ExternalIP,
            AddressType::Hostname
        ]
    );
    assert!(settings.addresses.use_node_status_port);
    assert_eq!(
        settings.node_selector.as_deref(),
        Some("metrics-server-skip!=true")
    );
    assert_eq!(settings.credential, KubeletCredential::Own);
    assert!(settings.log_level.starts_with("debug"));
}
