use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use x509_parser::prelude::*;

use super::*;

const DAY: i64 = 86_400;
const LIFETIMES: Lifetimes = Lifetimes {
    ca: Duration::from_hours(87_600),
    leaf: Duration::from_hours(2_160),
};

fn at(day: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + day * DAY).unwrap()
}

fn server() -> Server {
    Server {
        name: "front".to_owned(),
        dns_names: vec![
            "front.shop.svc".to_owned(),
            "front.shop.svc.cluster.local".to_owned(),
        ],
    }
}

fn fresh(now: Timestamp) -> Certificates {
    issue(
        judge(None, None, "", &server(), LIFETIMES, now),
        &server(),
        LIFETIMES,
        now,
    )
    .unwrap()
}

fn secret(certificate: &str, key: &str) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    Secret {
        data: Some(
            [
                ("tls.crt".to_owned(), bytes(certificate)),
                ("tls.key".to_owned(), bytes(key)),
            ]
            .into(),
        ),
        ..Secret::default()
    }
}

fn stored(pair: &KeyPair) -> Secret {
    secret(pair.certificate_pem(), pair.key_pem())
}

fn judged(certificates: &Certificates, now: Timestamp) -> Judgement {
    judge(
        Some(&stored(&certificates.ca)),
        Some(&stored(&certificates.leaf)),
        "",
        &server(),
        LIFETIMES,
        now,
    )
}

#[test]
fn what_is_made_is_good_and_kept() {
    let made = fresh(at(0));
    let judgement = judged(&made, at(0));
    assert_eq!(
        (&judgement.ca, &judgement.leaf),
        (&Ok(made.ca.clone()), &Ok(made.leaf.clone()))
    );
    assert_eq!(issue(judgement, &server(), LIFETIMES, at(0)).unwrap(), made);
}

#[test]
fn contents_are_what_kube_apiserver_needs() {
    let made = fresh(at(0));
    let der = made.leaf.certificate().clone();
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let names = leaf
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names
        .clone();
    assert_eq!(
        names,
        [
            GeneralName::DNSName("front.shop.svc"),
            GeneralName::DNSName("front.shop.svc.cluster.local")
        ]
    );
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth && !usage.any);
    assert_eq!(leaf.subject().to_string(), "CN=front");
    assert_eq!(leaf.issuer().to_string(), "CN=front-ca@1790000000");
    assert!(!leaf.is_ca());
    let der = made.ca.certificate().clone();
    let (_, ca) = X509Certificate::from_der(&der).unwrap();
    assert!(ca.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert_eq!(
        ca.basic_constraints().unwrap().unwrap().value.path_len_constraint,
        Some(0)
    );
}

#[test]
fn the_leaf_is_renewed_with_a_third_left_and_the_authority_stays() {
    let made = fresh(at(0));
    assert_eq!(made.leaf.not_before(), at(0).saturating_sub(BACKDATE).unwrap());
    assert_eq!(made.leaf.not_after(), at(90));
    // 90 days and the five minutes before: two thirds of that.
    assert_eq!(
        made.renew_at(),
        Timestamp::from_second(at(60).as_second() - 100).unwrap()
    );
    let before = Timestamp::from_second(made.renew_at().as_second() - 1).unwrap();
    assert_eq!(judged(&made, before).leaf.as_ref(), Ok(&made.leaf));
    let due = judged(&made, made.renew_at());
    assert!(matches!(due.leaf, Err(Unfit::Due { .. })), "{due:?}");
    let renewed = issue(due, &server(), LIFETIMES, made.renew_at()).unwrap();
    assert_eq!(renewed.ca, made.ca);
    assert_ne!(renewed.leaf, made.leaf);
    assert_eq!(judged(&renewed, made.renew_at()).leaf.as_ref(), Ok(&renewed.leaf));
}

#[test]
fn a_leaf_never_outlives_its_authority() {
    let lifetimes = Lifetimes {
        ca: Duration::from_hours(48),
        ..LIFETIMES
    };
    let made = issue(
        judge(None, None, "", &server(), lifetimes, at(0)),
        &server(),
        lifetimes,
        at(0),
    )
    .unwrap();
    assert_eq!(made.leaf.not_after(), made.ca.not_after());
    let judgement = judge(
        Some(&stored(&made.ca)),
        Some(&stored(&made.leaf)),
        "",
        &server(),
        lifetimes,
        at(1),
    );
    assert!(judgement.ca.is_ok() && judgement.leaf.is_ok(), "{judgement:?}");
}

#[test]
fn a_due_authority_takes_its_leaf_along() {
    let made = fresh(at(0));
    let judgement = judged(&made, at(2500));
    assert!(matches!(judgement.ca, Err(Unfit::Due { .. })));
    assert!(matches!(judgement.leaf, Err(Unfit::Unverified(_))));
}

#[test]
fn another_lifetime_makes_another_leaf() {
    let made = fresh(at(0));
    let lifetimes = Lifetimes {
        leaf: Duration::from_hours(24),
        ..LIFETIMES
    };
    let judgement = judge(
        Some(&stored(&made.ca)),
        Some(&stored(&made.leaf)),
        "",
        &server(),
        lifetimes,
        at(0),
    );
    assert_eq!(judgement.leaf, Err(Unfit::Lifetime));
    let renewed = issue(judgement, &server(), lifetimes, at(0)).unwrap();
    assert_eq!(renewed.leaf.not_after(), at(1));
}

#[test]
fn what_is_lost_or_spoilt_is_replaced() {
    let made = fresh(at(0));
    let other = fresh(at(0));
    let ca = stored(&made.ca);
    let leaf = stored(&made.leaf);
    let judge = |ca: Option<&Secret>, leaf: Option<&Secret>| judge(ca, leaf, "", &server(), LIFETIMES, at(1));

    assert_eq!(judge(Some(&ca), None).leaf, Err(Unfit::Missing));
    assert_eq!(judge(None, Some(&leaf)).ca, Err(Unfit::Missing));
    assert_eq!(judge(Some(&leaf), Some(&leaf)).ca, Err(Unfit::NotAnAuthority));
    assert_eq!(
        judge(Some(&Secret::default()), None).ca,
        Err(Unfit::Unreadable(PairError::Certificate))
    );
    let keyless = secret(made.ca.certificate_pem(), "");
    assert_eq!(
        judge(Some(&keyless), None).ca,
        Err(Unfit::Unreadable(PairError::Key))
    );
    let mixed = secret(made.leaf.certificate_pem(), other.leaf.key_pem());
    assert_eq!(
        judge(Some(&ca), Some(&mixed)).leaf,
        Err(Unfit::Unreadable(PairError::Mismatch))
    );
    let foreign = judge(Some(&ca), Some(&stored(&other.leaf)));
    assert!(matches!(foreign.leaf, Err(Unfit::Unverified(_))), "{foreign:?}");
    let renamed = Server {
        dns_names: vec!["front.other.svc".to_owned()],
        ..server()
    };
    let judgement = super::judge(Some(&ca), Some(&leaf), "", &renamed, LIFETIMES, at(1));
    assert!(
        matches!(judgement.leaf, Err(Unfit::Unverified(_))),
        "{judgement:?}"
    );
    let early = super::judge(Some(&ca), Some(&leaf), "", &server(), LIFETIMES, at(-1));
    assert!(matches!(early.ca, Err(Unfit::Due { .. })), "{early:?}");
}

#[test]
fn a_key_is_not_printed() {
    let made = fresh(at(0));
    assert!(!format!("{made:?}").contains("PRIVATE"), "{made:?}");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_judged(
        certificate in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        key in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
    ) {
        proptest::prop_assert!(KeyPair::parse(&certificate, &key).is_err());
    }
}

#[test]
fn while_one_authority_takes_over_from_another_both_are_trusted_and_the_old_certificate_serves_on() {
    let old = fresh(at(0));
    let minute = |minute: i64| Timestamp::from_second(at(1).as_second() + minute * 60).unwrap();
    let bundle = old.bundle();
    let complete = |ca: Option<&Secret>, leaf: &Secret, trusted: &str, now| {
        let judgement = judge(ca, Some(leaf), trusted, &server(), LIFETIMES, now);
        issue(judgement, &server(), LIFETIMES, now).unwrap()
    };
    let leaf = stored(&old.leaf);
    // The Secret is lost: what kube-apiserver trusts tells of the old one.
    let new = complete(None, &leaf, &bundle, minute(0));
    assert_ne!(new.ca, old.ca);
    assert_eq!(new.leaf, old.leaf);
    assert_eq!(
        new.bundle(),
        format!("{}{}", new.ca.certificate_pem(), old.ca.certificate_pem())
    );
    let keep = |certificates: &Certificates| {
        let mut secret = stored(&certificates.ca);
        let bundle = ByteString(certificates.bundle().into_bytes());
        secret.data.as_mut().unwrap().insert(BUNDLE.to_owned(), bundle);
        secret
    };
    let kept = keep(&new);
    assert_eq!(complete(Some(&kept), &leaf, &new.bundle(), minute(0)), new);
    let switched = complete(Some(&kept), &leaf, &new.bundle(), minute(1));
    assert_ne!(switched.leaf, old.leaf);
    assert_eq!(switched.bundle(), new.bundle());
    let settled = stored(&switched.leaf);
    assert_eq!(
        complete(Some(&kept), &settled, &new.bundle(), minute(2)),
        switched
    );
    // A day later the old one is forgotten.
    let alone = complete(Some(&kept), &settled, &new.bundle(), at(2));
    assert_eq!(alone.bundle(), new.ca.certificate_pem());
}

#[test]
fn what_is_no_authority_is_never_trusted() {
    let old = fresh(at(0));
    let nonsense = format!(
        "x{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        old.leaf.certificate_pem()
    );
    for (trusted, now) in [(nonsense, at(1)), (old.ca.certificate_pem().to_owned(), at(3650))] {
        let leaf = stored(&old.leaf);
        let judgement = judge(None, Some(&leaf), &trusted, &server(), LIFETIMES, now);
        assert_eq!(judgement.previous, None);
        assert!(judgement.leaf.is_err());
    }
}
