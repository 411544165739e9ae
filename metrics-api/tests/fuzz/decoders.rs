//! Bytes that others send, against what must hold whatever they are.
//!
//! Each decoder has one function from bytes to assertions. It is run over every file of `tests/corpus/DECODER/`, where
//! what once found something is kept; over lines put together from fragments; and, when `FUZZ_SECONDS` is set, over
//! changes of the corpus for that long each:
//!
//! ```sh
//! FUZZ_SECONDS=600 cargo test --release -p metrics-api --test fuzz changes -- --nocapture
//! ```

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use contract::trust::TrustRecord;
use fuzz::Target;
use metrics_api::{
    decode::{Batch, DecodeError, MAX_CONTAINERS, Parts, decode, decode_summary},
    kubelet::{
        address::{AddressRules, AddressType, Host},
        authority::Authority,
        identity,
        tls::{TlsMode, Verifier},
    },
    names::Names,
    store::{Store, series::Rules},
    time::{GoDuration, Monotonic, UnixMillis, parse_go_duration},
};
use proptest::prelude::*;
use rustls::{
    client::danger::ServerCertVerifier as _,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

const ASKED: UnixMillis = UnixMillis(1_795_452_100_000);
/// What quantities are printed from.
const LARGEST: u64 = i64::MAX.cast_unsigned();

type FuzzOne = fn(&[u8]);

const DECODERS: [(&str, FuzzOne); 6] = [
    ("resource", resource),
    ("summary", summary),
    ("certificate", certificate),
    ("duration", duration),
    ("record", record),
    ("address", address),
];

/// What holds for an answer, however it came about.
fn check_answer(decoded: &Result<Batch<'_>, DecodeError>) {
    let Ok(batch) = decoded else { return };
    let check_parts = |parts: &Parts| {
        for (time, value) in [parts.cpu, parts.memory, parts.swap].into_iter().flatten() {
            assert!(time.0 > 0 && value <= LARGEST, "{parts:?}");
        }
    };
    check_parts(&batch.node);
    assert!(batch.containers.len() <= MAX_CONTAINERS);
    let key = |at: usize| {
        let container = &batch.containers[at];
        (&container.namespace, &container.pod, &container.name)
    };
    for (at, container) in batch.containers.iter().enumerate() {
        check_parts(&container.parts);
        for name in [&container.namespace, &container.pod, &container.name] {
            assert!((1..=253).contains(&name.len()), "{name:?}");
        }
        assert!(at == 0 || key(at - 1) < key(at), "in order, and none twice");
    }
    let store = Store::new(Rules { resolution: 15_000 }, Names::default());
    for second in [0, 15, 30] {
        store.put("node", batch, Monotonic(86_400_000 + second * 1000));
    }
    let points = store.points(Monotonic(86_430_000));
    assert!(points.containers <= batch.containers.len() && points.nodes <= 1);
}

fn resource(bytes: &[u8]) {
    let decoded = decode(bytes, ASKED);
    check_answer(&decoded);
    let commented = [b"# HELP of nothing\n\n", bytes].concat();
    assert_eq!(decode(&commented, ASKED), decoded, "comments mean nothing");
    if let Ok(batch) = &decoded {
        assert!(!batch.kubelet_error || !batch.complete);
    }
}

fn summary(bytes: &[u8]) {
    let decoded = decode_summary(bytes, ASKED);
    check_answer(&decoded);
    let spaced = [b" \n", bytes, b"\t\r\n"].concat();
    assert_eq!(decode_summary(&spaced, ASKED), decoded, "spaces mean nothing");
}

fn certificate(bytes: &[u8]) {
    let provider = aws_lc_rs::default_provider();
    let algorithms = provider.signature_verification_algorithms;
    let der = CertificateDer::from(bytes.to_vec());
    let authority = Authority::from_pem(bytes, "the corpus")
        .or_else(|_| Authority::from_der(vec![der.clone()], "the corpus"));
    if let Ok(authority) = authority {
        let authority = Arc::new(authority);
        for mode in [TlsMode::Auto, TlsMode::Verify, TlsMode::Insecure] {
            let verifier = Verifier::new(mode, Some(Arc::clone(&authority)), algorithms);
            let name = ServerName::try_from("node-a").unwrap();
            let now = UnixTime::since_unix_epoch(Duration::from_secs(1_795_452_100));
            let answer = verifier.verify_server_cert(&der, std::slice::from_ref(&der), &name, &[], now);
            let outcome = verifier.outcome().unwrap();
            assert_eq!(answer.is_ok(), outcome.is_ok(), "{outcome:?}");
            assert!(mode != TlsMode::Insecure || outcome.is_ok());
        }
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = identity::from_base64(&text, &text, &provider);
}

fn duration(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match parse_go_duration(text) {
        Ok(duration) => {
            if let Ok(millis) = u64::try_from(duration.as_millis())
                && millis < 1 << 40
            {
                let again = parse_go_duration(&GoDuration { millis }.to_string()).unwrap();
                assert!(again.as_millis().abs_diff(u128::from(millis)) <= 1, "{text}");
            }
        }
        Err(error) => assert!(error.contains("expected a duration")),
    }
}

fn record(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(record) = text.parse::<TrustRecord>() {
        assert_eq!(record.to_string(), text);
    }
}

fn address(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let rules = AddressRules {
        types: vec![AddressType::InternalIP],
        port: 10250,
        use_node_status_port: false,
        loopback: false,
    };
    match rules.choose(&[("InternalIP", &*text)].into_iter(), 0) {
        Ok(endpoint) => match &endpoint.host {
            Host::Ip(ip) => {
                let canonical = ip.to_canonical();
                let is_local = match canonical {
                    IpAddr::V4(ip) => ip.is_link_local(),
                    IpAddr::V6(ip) => ip.is_unicast_link_local(),
                };
                assert!(
                    !(is_local || canonical.is_loopback() || canonical.is_unspecified()),
                    "{ip}"
                );
            }
            Host::Name(name) => {
                assert_eq!(**name, *text);
                endpoint.server_name().unwrap();
            }
        },
        Err(error) => {
            assert!(error.message.len() < 1024, "{}", error.message.len());
            assert!(
                !error.message.chars().any(char::is_control),
                "{:?}",
                error.message
            );
        }
    }
}

fn targets() -> impl Iterator<Item = Target<'static>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    DECODERS.into_iter().map(move |(name, one)| Target {
        name,
        inputs: fuzz::corpus(&folder.join(name)),
        fragments: &FRAGMENTS,
        one,
    })
}

#[test]
fn the_corpus_holds() {
    targets().for_each(|target| target.holds());
}

/// Where mistakes are made.
const FRAGMENTS: [&str; 40] = [
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
    "container_start_time_seconds",
    "container_swap_usage_bytes",
    "node_cpu_usage_seconds_total",
    "node_memory_working_set_bytes",
    "node_swap_usage_bytes",
    "pod_cpu_usage_seconds_total",
    "resource_scrape_error",
    "scrape_error",
    "{container=\"c\",namespace=\"n\",pod=\"p\"}",
    "{container=\"d\",namespace=\"n\",pod=\"p\"}",
    "{pod=\"p\",container=\"c\"}",
    "{",
    "}",
    "{}",
    "container=\"",
    "namespace=\"n\"",
    "\"",
    "\\",
    "\\\"",
    ",",
    "=",
    " ",
    "\t",
    "\n",
    "\r\n",
    "# ",
    " 1",
    " 0",
    " -1",
    " 1e300",
    " NaN",
    " +Inf",
    " 1795452103618",
    " 9223372036854775807",
    " 9223372036854775808",
    "é",
    "\0",
    "x",
];

proptest! {
    #[test]
    fn lines_of_fragments_hold(fragments in proptest::collection::vec(proptest::sample::select(&FRAGMENTS[..]), 0..60)) {
        resource(fragments.concat().as_bytes());
    }

    #[test]
    fn any_bytes_hold(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (_, one) in DECODERS {
            one(&bytes);
        }
    }
}

#[test]
fn changes_of_the_corpus_hold() {
    targets().for_each(|target| target.changes_hold());
}
