//! Bytes that others send, against what must hold whatever they are.
//!
//! Each decoder has one function from bytes to assertions. It is run over every file of `tests/corpus/DECODER/`, where
//! what once found something is kept; over lines put together from fragments; and, when `FUZZ_SECONDS` is set, over
//! changes of the corpus for that long each:
//!
//! ```sh
//! FUZZ_SECONDS=600 cargo test --release -p metrics-api --test fuzz changes -- --nocapture
//! ```

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    net::IpAddr,
    panic::catch_unwind,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use contract::trust::TrustRecord;
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

fn corpus(decoder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(decoder);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn the_corpus_holds() {
    for (decoder, one) in DECODERS {
        for (path, bytes) in corpus(decoder) {
            assert!(catch_unwind(|| one(&bytes)).is_ok(), "{}", path.display());
        }
    }
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

/// A generator of numbers that needs no seed to be kept: what it finds is kept as a file.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end.max(1) as u64).unwrap()
    }

    /// Some bytes of that, changed in a few places.
    fn change(&mut self, all: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = all[self.below(all.len())].1.clone();
        for _ in 0..=self.below(6) {
            let (from, to) = (self.below(bytes.len() + 1), self.below(bytes.len() + 1));
            let (from, to) = (from.min(to), from.max(to));
            match self.below(6) {
                0 => drop(bytes.drain(from..to.min(from + 40))),
                1 => {
                    let piece = bytes[from..to].to_vec();
                    let at = self.below(bytes.len() + 1);
                    bytes.splice(at..at, piece);
                }
                2 => {
                    let other = &all[self.below(all.len())].1;
                    let start = self.below(other.len() + 1);
                    let piece: Vec<_> = other[start..].iter().copied().take(80).collect();
                    bytes.splice(from..from, piece);
                }
                3 => {
                    let fragment = FRAGMENTS[self.below(FRAGMENTS.len())];
                    bytes.splice(from..from, fragment.bytes());
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(from) {
                        *byte = u8::try_from(self.below(256)).unwrap();
                    }
                }
            }
        }
        bytes.truncate(1 << 16);
        bytes
    }
}

#[test]
fn changes_of_the_corpus_hold() {
    let asked = std::env::var("FUZZ_SECONDS").ok();
    let limit = asked.as_deref().map_or(Duration::from_millis(300), |seconds| {
        Duration::from_secs(seconds.parse().expect("FUZZ_SECONDS is a number of seconds"))
    });
    for (decoder, one) in DECODERS {
        let all = corpus(decoder);
        let mut dice = Dice(RandomState::new().hash_one(decoder));
        let (begun, mut inputs) = (Instant::now(), 0_u64);
        while begun.elapsed() < limit && inputs < 10_000_000 {
            let bytes = dice.change(&all);
            inputs += 1;
            if catch_unwind(|| one(&bytes)).is_err() {
                let found = std::env::temp_dir().join(format!("fuzz-{decoder}-{inputs}"));
                std::fs::write(&found, &bytes).unwrap();
                panic!("{decoder}: keep {} in the corpus", found.display());
            }
        }
        println!("{decoder}: {inputs} inputs in {:.1?}", begun.elapsed());
    }
}
