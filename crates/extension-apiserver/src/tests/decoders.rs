//! Bytes that clients and the cluster send, against what must hold whatever they are.
//!
//! ```sh
//! FUZZ_SECONDS=600 cargo test --release -p extension-apiserver changes_of_them -- --nocapture
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fuzz::Target;
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;

use super::authentication::{fixed, now, unix};
use super::certificates::{Authority, Leaf};
use super::published;
use crate::answer::paging;
use crate::authn::config::AuthenticationConfig;
use crate::authn::peer::judge;
use crate::authn::{Presented, headers};
use crate::selector::{FieldSelector, LabelSelector};
use crate::tls::pair::{Pair, PairBytes};

const HASH: &str = "0011223344556677";
const USER: &str = "jane";

/// Each decoder with its inputs: what is written here, and the files of `tests/corpus/DECODER/`, where what once found
/// something is kept.
fn targets() -> [Target<'static>; 6] {
    [
        target("labels", labels, texts(&LABELS), &LABEL_FRAGMENTS),
        target("fields", fields, texts(&FIELDS), &FIELD_FRAGMENTS),
        target(
            "continue",
            continue_token,
            TOKENS.map(token).into(),
            &["eyJ", "A", "-", "_", "=", "+"],
        ),
        target(
            "front-proxy-headers",
            front_proxy_headers,
            texts(&HEADERS),
            &HEADER_FRAGMENTS,
        ),
        target(
            "authentication-config",
            authentication_config,
            configs(),
            &CONFIG_FRAGMENTS,
        ),
        target("certificate", certificate, certificates(), &CERTIFICATE_FRAGMENTS),
    ]
}

fn target(
    name: &'static str,
    one: fn(&[u8]),
    mut inputs: Vec<Vec<u8>>,
    fragments: &'static [&'static str],
) -> Target<'static> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name);
    if kept.is_dir() {
        inputs.extend(fuzz::corpus(&kept));
    }
    Target {
        name,
        inputs,
        fragments,
        one,
    }
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const LABELS: [&str; 7] = [
    "",
    "a",
    "!a",
    "a=b,c!=d",
    "a in (b,c),d notin (e,f)",
    "a>1,b<2",
    "example.dev/a==b",
];
const LABEL_FRAGMENTS: [&str; 18] = [
    "in", "notin", "(", ")", ",", "=", "==", "!=", "!", ">", "<", " ", "/", ".", "-", "a", "9", "é",
];
const FIELDS: [&str; 4] = [
    "",
    "metadata.name=a",
    "metadata.namespace!=b,metadata.name==c",
    "a=\\,\\=\\\\",
];
const FIELD_FRAGMENTS: [&str; 10] = [
    "metadata.name",
    "metadata.namespace",
    "=",
    "==",
    "!=",
    ",",
    "\\",
    "\\,",
    " ",
    "é",
];
const TOKENS: [&str; 4] = [
    r#"{"v":1,"namespace":"n","name":"a","hash":"0011223344556677"}"#,
    r#"{"v":1,"name":"a","hash":"0011223344556677"}"#,
    r#"{"v":2,"name":"a","hash":""}"#,
    "{}",
];
const HEADERS: [&str; 3] = [
    "x-remote-user: jane\nx-remote-group: a\nx-remote-group: b\nx-remote-extra-scopes: c\n",
    "x-remote-user: jane\nx-remote-user: joe\n",
    "x-remote-extra-a%2fb: c\nx-remote-user: system:serviceaccount:a:b\n",
];
const HEADER_FRAGMENTS: [&str; 8] = [
    "x-remote-user: ",
    "x-remote-group: ",
    "x-remote-uid: ",
    "x-remote-extra-",
    "%",
    "%2f",
    "\n",
    ": ",
];
const CONFIG_FRAGMENTS: [&str; 9] = [
    "[",
    "]",
    "\\\"",
    "null",
    "-----BEGIN CERTIFICATE-----",
    "\\n",
    "requestheader-",
    "X-Remote-",
    ",",
];
const CERTIFICATE_FRAGMENTS: [&str; 5] = [
    "-----BEGIN CERTIFICATE-----\n",
    "-----END CERTIFICATE-----\n",
    "0\u{82}",
    "\n",
    "\0",
];

fn configs() -> Vec<Vec<u8>> {
    let authority = Some(Authority::fixed());
    vec![serde_json::to_vec(&published(authority, authority)).unwrap()]
}

fn certificates() -> Vec<Vec<u8>> {
    let (certificate, key) = (client().certificate_pem(), client().key_pem());
    vec![
        client().der(),
        certificate.into(),
        format!("{certificate}{key}").into(),
    ]
}

fn token(json: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.encode(json).into_bytes()
}

fn client() -> &'static Leaf {
    static CLIENT: LazyLock<Leaf> = LazyLock::new(|| Authority::fixed().client(USER));
    &CLIENT
}

fn labels(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let parsed = LabelSelector::parse(text);
    assert_eq!(LabelSelector::parse(&format!(" {text}")).is_ok(), parsed.is_ok());
    match parsed {
        Ok(selector) => {
            assert!(selector.len() <= text.len());
            let value = |key: &str| text.get(..key.len().min(1));
            assert_eq!(selector.matches(value), selector.clone().matches(value));
        }
        Err(error) => assert!(!error.is_empty()),
    }
}

fn fields(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match FieldSelector::parse(text).and_then(FieldSelector::of_objects) {
        Ok(fields) => {
            assert!(fields.len() <= text.len());
            assert!(
                fields
                    .namespace()
                    .is_none_or(|namespace| namespace.len() <= text.len())
            );
        }
        Err(error) => assert!(!error.is_empty()),
    }
}

fn continue_token(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if paging::read(text, HASH).is_ok() {
        assert!(paging::read(text, "another list's").is_err());
    }
}

fn front_proxy_headers(bytes: &[u8]) {
    let mut all = HeaderMap::new();
    for line in bytes.split(|&byte| byte == b'\n') {
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.get(2..).unwrap_or_default();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            all.append(name, value);
        }
    }
    let (config, judgement) = fixed();
    match headers::identify(config, judgement, &all) {
        Presented::User(user) => {
            let named = all.get_all("x-remote-user");
            assert!(!user.name.is_empty());
            assert!(named.iter().any(|value| value.as_bytes() == user.name.as_bytes()));
            let wants = |group: &String| {
                group == "system:authenticated"
                    || all
                        .get_all("x-remote-group")
                        .iter()
                        .any(|value| value.as_bytes() == group.as_bytes())
            };
            assert!(user.groups.iter().all(wants), "{:?}", user.groups);
        }
        Presented::Refused { reason, .. } => assert!(!reason.is_empty()),
        Presented::Nothing => panic!("a certificate is something"),
    }
}

fn authentication_config(bytes: &[u8]) {
    let data = serde_json::from_slice(bytes).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let keys = [
            "client-ca-file",
            "requestheader-client-ca-file",
            "requestheader-allowed-names",
        ];
        BTreeMap::from(keys.map(|key| (key.to_owned(), text.clone())))
    });
    match AuthenticationConfig::parse(&data) {
        Ok(config) => {
            let is_there = |key: &str| data.get(key).is_some_and(|value| !value.trim().is_empty());
            assert_eq!(config.client_ca.is_some(), is_there("client-ca-file"));
            assert_eq!(
                config.front_proxy.is_some(),
                is_there("requestheader-client-ca-file")
            );
        }
        Err(error) => assert!(error.to_string().contains("key \"")),
    }
}

fn certificate(bytes: &[u8]) {
    let config = &fixed().0;
    let chain = [
        CertificateDer::from(bytes.to_vec()),
        Authority::fixed().certificate(),
    ];
    let judgement = judge(config, &chain, unix(now()));
    // Nothing but the front proxy's own certificate is its.
    assert!(judgement.front_proxy.is_err());
    let trusting = AuthenticationConfig::parse(&published(Some(Authority::fixed()), None)).unwrap();
    if let Ok(user) = judge(&trusting, &chain, unix(now())).user {
        assert_eq!(user.name, USER, "only what the authority signed is somebody");
    }
    let pair = PairBytes {
        certificate: bytes.to_vec(),
        key: client().key_pem().into(),
    };
    let (certificate, key) = (Path::new("tls.crt"), Path::new("tls.key"));
    if let Err(error) = Pair::parse(&pair, certificate, key) {
        assert!(error.to_string().contains("tls."), "{error}");
    }
}

#[test]
fn known_inputs_hold() {
    targets().iter().for_each(Target::holds);
}

#[test]
fn changes_of_them_hold() {
    targets().iter().for_each(Target::changes_hold);
}
