//! Which certificates pass, and what is remembered of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use contract::report::{ErrorClass, TlsState};
use metrics_api::kubelet::{
    authority,
    client::{Kept, KubeletClient, KubeletOptions, RESOURCE_METRICS},
    identity::{self, ClientCertificate},
    tls::TlsMode,
};

use crate::support::{
    UID,
    api::FakeApi,
    auto, client,
    kubelet::FakeKubelet,
    options,
    pki::{self, Authority, Identity, as_authority, expired, for_a_name, for_clients, self_signed},
    provider,
};

/// A new connection's outcome, and whether the kubelet saw a request.
async fn meet(client: &KubeletClient, identity: &Identity) -> (Result<TlsState, ErrorClass>, bool) {
    meet_at(client, &FakeKubelet::start(identity).await).await
}

async fn meet_at(client: &KubeletClient, kubelet: &FakeKubelet) -> (Result<TlsState, ErrorClass>, bool) {
    let mut kept = Kept::default();
    let result = client
        .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await;
    if let Err(error) = &result {
        assert_eq!(kept.tls, TlsState::Refused, "{}", error.message);
    }
    (
        result.map(|_| kept.tls).map_err(|error| error.class),
        !kubelet.seen().is_empty(),
    )
}

#[tokio::test]
async fn verify_takes_only_what_chains_and_fits() {
    let (cluster, other) = (Authority::new("cluster"), Authority::new("other"));
    let client = client(TlsMode::Verify, &cluster);
    let table = [
        ("chains", cluster.leaf(|_| {}), Ok(TlsState::Verified)),
        (
            "chains by an intermediate",
            cluster.leaf_by_intermediate(|_| {}),
            Ok(TlsState::Verified),
        ),
        (
            "other authority",
            other.leaf(|_| {}),
            Err(ErrorClass::TlsUnknownAuthority),
        ),
        (
            "other of the same name",
            Authority::new("cluster").leaf(|_| {}),
            Err(ErrorClass::TlsUnknownAuthority),
        ),
        (
            "self-signed",
            self_signed(for_a_name),
            Err(ErrorClass::TlsUnknownAuthority),
        ),
        (
            "self-signed, expired",
            self_signed(expired),
            Err(ErrorClass::TlsUnknownAuthority),
        ),
        (
            "wrong name",
            cluster.leaf(for_a_name),
            Err(ErrorClass::TlsNameMismatch),
        ),
        ("expired", cluster.leaf(expired), Err(ErrorClass::TlsExpired)),
        (
            "expired, by an intermediate",
            cluster.leaf_by_intermediate(expired),
            Err(ErrorClass::TlsExpired),
        ),
        (
            "for clients",
            cluster.leaf(for_clients),
            Err(ErrorClass::TlsInvalid),
        ),
        (
            "an authority itself",
            cluster.leaf(as_authority),
            Err(ErrorClass::TlsInvalid),
        ),
    ];
    for (name, identity, expected) in table {
        let seen = expected.is_ok();
        assert_eq!(meet(&client, &identity).await, (expected, seen), "{name}");
    }
}

#[tokio::test]
async fn auto_pins_what_does_not_chain_and_never_what_does() {
    let (cluster, other) = (Authority::new("cluster"), Authority::new("other"));
    let table = [
        ("chains", cluster.leaf(|_| {}), Ok(TlsState::Verified)),
        ("self-signed", self_signed(for_a_name), Ok(TlsState::Pinned)),
        ("self-signed, expired", self_signed(expired), Ok(TlsState::Pinned)),
        (
            "self-signed, an authority itself",
            self_signed(as_authority),
            Ok(TlsState::Pinned),
        ),
        (
            "self-signed, for clients",
            self_signed(for_clients),
            Ok(TlsState::Pinned),
        ),
        ("other authority", other.leaf(|_| {}), Ok(TlsState::Pinned)),
        (
            "wrong name",
            cluster.leaf(for_a_name),
            Err(ErrorClass::TlsNameMismatch),
        ),
        ("expired", cluster.leaf(expired), Err(ErrorClass::TlsExpired)),
        (
            "for clients",
            cluster.leaf(for_clients),
            Err(ErrorClass::TlsInvalid),
        ),
    ];
    for (name, identity, expected) in table {
        let api = FakeApi::default();
        let client = auto(&cluster, &api);
        let seen = expected.is_ok();
        assert_eq!(meet(&client, &identity).await, (expected, seen), "{name}");
        let recorded = api.records().remove(UID).unwrap_or_default();
        let start = match expected {
            Ok(TlsState::Verified) => "verified",
            Ok(_) => "pinned sha256:",
            Err(_) => "",
        };
        assert!(
            recorded.starts_with(start) && recorded.is_empty() == start.is_empty(),
            "{name}: {recorded}"
        );
    }
}

#[tokio::test]
async fn for_a_pin_only_the_key_counts() {
    let (cluster, api) = (Authority::new("cluster"), FakeApi::default());
    let client = auto(&cluster, &api);
    let first = self_signed(for_a_name);
    assert_eq!(meet(&client, &first).await.0, Ok(TlsState::Pinned));
    assert_eq!(
        meet(&client, &first.renewed(expired)).await.0,
        Ok(TlsState::Pinned)
    );
    assert_eq!(
        meet(&client, &self_signed(for_a_name)).await,
        (Err(ErrorClass::TlsKeyChanged), false)
    );
    assert_eq!(
        meet(&client, &first).await.0,
        Ok(TlsState::Pinned),
        "a stranger's visit changes nothing"
    );
    assert_eq!(api.writes(), 1);
}

#[tokio::test]
async fn a_node_that_was_verified_is_never_pinned() {
    let (cluster, api) = (Authority::new("cluster"), FakeApi::default());
    let client = auto(&cluster, &api);
    let own = self_signed(|_| {});
    assert_eq!(meet(&client, &own).await.0, Ok(TlsState::Pinned));
    assert_eq!(
        meet(&client, &cluster.leaf(|_| {})).await.0,
        Ok(TlsState::Verified)
    );
    assert_eq!(api.records()[UID], "verified");
    assert_eq!(meet(&client, &own).await, (Err(ErrorClass::TlsDowngrade), false));
}

#[tokio::test]
async fn a_record_that_an_administrator_removed_is_made_anew() {
    let (cluster, api) = (Authority::new("cluster"), FakeApi::default());
    let client = auto(&cluster, &api);
    let (old, new) = (self_signed(|_| {}), self_signed(|_| {}));
    assert_eq!(meet(&client, &old).await.0, Ok(TlsState::Pinned));
    assert_eq!(meet(&client, &new).await.0, Err(ErrorClass::TlsKeyChanged));
    api.put_record(UID, None);
    assert_eq!(meet(&client, &new).await.0, Ok(TlsState::Pinned));
    assert_eq!(meet(&client, &old).await.0, Err(ErrorClass::TlsKeyChanged));
}

#[tokio::test]
async fn without_its_record_nobody_is_trusted_who_needs_one() {
    let (cluster, api) = (Authority::new("cluster"), FakeApi::default());
    let client = auto(&cluster, &api);
    api.refuse(|_, path| path.contains("configmaps").then_some(403));
    let unavailable = (Err(ErrorClass::TlsRecordUnavailable), false);
    assert_eq!(meet(&client, &self_signed(|_| {})).await, unavailable);
    assert_eq!(
        meet(&client, &cluster.leaf(|_| {})).await,
        (Ok(TlsState::Verified), true)
    );
    // It can be read but not written.
    api.refuse(|method, _| (*method != http::Method::GET).then_some(403));
    assert_eq!(meet(&client, &self_signed(|_| {})).await, unavailable);
    api.allow_all();
    api.put_record(UID, Some("pinned sha256:what?"));
    assert_eq!(meet(&client, &self_signed(|_| {})).await, unavailable);
}

#[tokio::test]
async fn whoever_shows_a_certificate_must_have_its_key() {
    let (cluster, api) = (Authority::new("cluster"), FakeApi::default());
    let (good, pinned, own) = (cluster.leaf(|_| {}), self_signed(|_| {}), self_signed(|_| {}));
    let client = auto(&cluster, &api);
    meet(&client, &pinned).await.0.unwrap();
    for shown in [&good, &pinned] {
        let impostor = FakeKubelet::impostor(shown, &own).await;
        let mut kept = Kept::default();
        let error = client
            .get(&mut kept, UID, &impostor.endpoint, RESOURCE_METRICS)
            .await
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::TlsHandshake, "{}", error.message);
        assert_eq!(impostor.seen(), []);
    }
    assert_eq!(api.writes(), 1, "nothing was recorded of them");
}

#[tokio::test]
async fn insecure_looks_at_nothing() {
    let cluster = Authority::new("cluster");
    let client = client(TlsMode::Insecure, &cluster);
    assert_eq!(
        meet(&client, &self_signed(expired)).await.0,
        Ok(TlsState::Insecure)
    );
}

#[tokio::test]
async fn a_kept_connection_does_not_outlive_its_authority() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let trusted = |authority: &Authority| {
        let pem = authority.pem();
        Arc::new(authority::Authority::from_pem(pem.as_bytes(), "the test").unwrap())
    };
    let (sender, receiver) = tokio::sync::watch::channel(trusted(&before));
    let options = KubeletOptions {
        authority: Some(receiver),
        ..options(TlsMode::Verify, &before)
    };
    let client = KubeletClient::new(options, provider());
    let kubelet = FakeKubelet::start(&before.leaf(|_| {})).await;
    let mut kept = Kept::default();
    client
        .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await
        .unwrap();
    sender.send_replace(trusted(&after));
    let error = client
        .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::TlsUnknownAuthority);
    kubelet.show(&after.leaf(|_| {}));
    client
        .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_open_connection_is_judged_by_a_new_record_too() {
    let (cluster, api) = (Authority::new("cluster"), FakeApi::default());
    let client = auto(&cluster, &api);
    let kubelet = FakeKubelet::start(&self_signed(|_| {})).await;
    let mut kept = Kept::default();
    client
        .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await
        .unwrap();
    let (reads, pin) = (api.reads(), api.records()[UID].clone());
    client
        .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
        .await
        .unwrap();
    assert_eq!(api.reads(), reads, "what was read a moment ago is not read again");
    assert_eq!(api.records()[UID], pin);
    assert_eq!(kubelet.connections(), 1);
}

#[tokio::test]
async fn a_file_of_authorities_must_hold_one() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "no certificate").unwrap();
    let error = authority::watch_file(file.path().to_owned())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(file.path().to_str().unwrap()), "{error}");
    let error = authority::watch_file("/nonexistent/ca.crt".into())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("/nonexistent/ca.crt"), "{error}");
    std::fs::write(file.path(), Authority::new("cluster").pem()).unwrap();
    authority::watch_file(file.path().to_owned()).await.unwrap();
    assert!(authority::Authority::from_pem(pki::pem(&b"rubbish".to_vec().into()).as_bytes(), "x").is_err());
}

#[tokio::test]
async fn a_certificate_of_version_1_is_as_good_as_its_key() {
    let (cluster, api) = (Authority::new("cluster"), FakeApi::default());
    let own = self_signed(|_| {});
    let (shown, other) = (own.as_version_1(), self_signed(|_| {}).as_version_1());
    let (insecure, verify, auto) = (
        client(TlsMode::Insecure, &cluster),
        client(TlsMode::Verify, &cluster),
        auto(&cluster, &api),
    );
    let table = [
        (&insecure, &shown, Ok(TlsState::Insecure)),
        (&verify, &shown, Err(ErrorClass::TlsUnknownAuthority)),
        (&auto, &shown, Ok(TlsState::Pinned)),
        // Only the key counts, in whatever certificate it comes.
        (&auto, &own, Ok(TlsState::Pinned)),
        (&auto, &other, Err(ErrorClass::TlsKeyChanged)),
    ];
    for (client, identity, expected) in table {
        for kubelet in [
            FakeKubelet::start(identity).await,
            FakeKubelet::old(identity).await,
        ] {
            let seen = expected.is_ok();
            assert_eq!(meet_at(client, &kubelet).await, (expected, seen));
        }
    }
    // Whoever shows it must have the key, in either version of TLS.
    for impostor in [
        FakeKubelet::impostor(&shown, &self_signed(|_| {})).await,
        FakeKubelet::old_impostor(&shown, &self_signed(|_| {})).await,
    ] {
        for client in [&insecure, &auto] {
            let answer = client
                .get(&mut Kept::default(), UID, &impostor.endpoint, RESOURCE_METRICS)
                .await;
            assert_eq!(answer.unwrap_err().class, ErrorClass::TlsHandshake);
        }
        assert_eq!(impostor.seen(), []);
    }
}

/// A certificate and its key as files.
fn write(directory: &Path, identity: &Identity) -> (PathBuf, PathBuf) {
    let (certificate, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    std::fs::write(&certificate, pki::pem(&identity.chain[0])).unwrap();
    std::fs::write(&key, pki::key_pem(identity)).unwrap();
    (certificate, key)
}

#[tokio::test]
async fn a_client_certificate_must_fit_its_key_and_is_read_again() {
    let authority = Authority::new("clients");
    let (first, second) = (authority.leaf(for_clients), authority.leaf(for_clients));
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = write(directory.path(), &first);
    std::fs::write(&key, pki::key_pem(&second)).unwrap();
    let error = identity::watch_files(certificate.clone(), key.clone(), provider())
        .await
        .unwrap_err()
        .to_string();
    for part in ["tls.crt", "tls.key", "do not belong together"] {
        assert!(error.contains(part), "{error}");
    }
    std::fs::write(&key, pki::key_pem(&first)).unwrap();
    tokio::time::pause();
    let mut watched = identity::watch_files(certificate, key, provider()).await.unwrap();
    assert_eq!(watched.borrow().chain, first.chain);
    write(directory.path(), &second);
    watched.changed().await.unwrap();
    assert_eq!(watched.borrow().chain, second.chain);
}

#[tokio::test]
async fn a_new_client_certificate_is_shown_at_the_next_scrape() {
    let (cluster, clients) = (Authority::new("cluster"), Authority::new("clients"));
    let kubelet = FakeKubelet::start(&cluster.leaf(|_| {})).await;
    let certificate = |identity: &Identity| {
        Arc::new(ClientCertificate {
            chain: identity.chain.clone(),
            key: identity.private_key(),
        })
    };
    let (sender, receiver) = tokio::sync::watch::channel(certificate(&clients.leaf(for_clients)));
    let client = KubeletClient::new(
        KubeletOptions {
            identity: Some(receiver),
            ..options(TlsMode::Verify, &cluster)
        },
        provider(),
    );
    let mut kept = Kept::default();
    for connections in [1, 1, 2] {
        if connections == 2 {
            sender.send_replace(certificate(&clients.leaf(for_clients)));
        }
        client
            .get(&mut kept, UID, &kubelet.endpoint, RESOURCE_METRICS)
            .await
            .unwrap();
        assert_eq!(kubelet.connections(), connections);
    }
}
