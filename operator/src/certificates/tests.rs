use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use x509_parser::prelude::*;

use super::*;

mod somebody_elses;

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

/// What is made where nothing is.
fn fresh(now: Timestamp) -> Certificates {
    complete(None, None, &Usage::default(), LIFETIMES, now)
}

fn complete(
    ca: Option<&Secret>,
    leaf: Option<&Secret>,
    usage: &Usage,
    lifetimes: Lifetimes,
    now: Timestamp,
) -> Certificates {
    let judgement = judge(Stored { ca, leaf }, usage, &server(), lifetimes, now);
    issue(judgement, &server(), lifetimes, now).unwrap()
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

fn signer(certificates: &Certificates) -> &KeyPair {
    certificates.ca.as_ref().unwrap()
}

/// As the Secrets hold it.
pub(super) fn kept(certificates: &Certificates) -> (Secret, Secret) {
    let (mut ca, mut leaf) = (stored(signer(certificates)), stored(&certificates.leaf));
    let put = |secret: &mut Secret, key: &str, text: &str| {
        let data = secret.data.as_mut().unwrap();
        data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
    };
    put(&mut ca, BUNDLE, &certificates.bundle());
    let others = [
        (&mut ca, NEXT, &certificates.next),
        (&mut leaf, PREVIOUS, &certificates.previous),
    ];
    for (secret, (certificate, key), pair) in others {
        if let Some(pair) = pair {
            put(secret, certificate, pair.certificate_pem());
            put(secret, key, pair.key_pem());
        }
    }
    (ca, leaf)
}

fn judged(certificates: &Certificates, now: Timestamp) -> Judgement {
    let (ca, leaf) = kept(certificates);
    let stored = Stored {
        ca: Some(&ca),
        leaf: Some(&leaf),
    };
    judge(stored, &usage(certificates), &server(), LIFETIMES, now)
}

/// Clients have the bundle, and for long enough; nobody has looked at the servers.
fn usage(certificates: &Certificates) -> Usage {
    let published = certificates.bundle();
    Usage {
        settled: authority::read(&published, at(0)),
        published,
        ..Usage::default()
    }
}

/// Clients have the bundle since just now.
fn unsettled(certificates: &Certificates) -> Usage {
    Usage {
        settled: Vec::new(),
        ..usage(certificates)
    }
}

fn confirmed(certificates: &Certificates) -> Usage {
    Usage {
        confirmed: Some(certificates.leaf.certificate().to_vec()),
        ..usage(certificates)
    }
}

fn next_turn(certificates: &Certificates, usage: &Usage, now: Timestamp) -> Certificates {
    let (ca, leaf) = kept(certificates);
    complete(Some(&ca), Some(&leaf), usage, LIFETIMES, now)
}

#[test]
fn what_is_made_is_good_and_kept() {
    let made = fresh(at(0));
    let judgement = judged(&made, at(0));
    assert_eq!(
        (&judgement.ca, &judgement.leaf),
        (&Ok(signer(&made).clone()), &Ok(made.leaf.clone()))
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
    let der = signer(&made).certificate().clone();
    let (_, ca) = X509Certificate::from_der(&der).unwrap();
    assert!(ca.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert_eq!(
        ca.basic_constraints().unwrap().unwrap().value.path_len_constraint,
        Some(0)
    );
}

#[test]
fn the_leaf_is_renewed_with_a_third_left_or_a_little_earlier_and_the_authority_stays() {
    let made = fresh(at(0));
    assert_eq!(made.leaf.not_before(), at(0).saturating_sub(BACKDATE).unwrap());
    assert_eq!(made.leaf.not_after(), at(90));
    assert_eq!(made.renew_at(), Some(made.leaf.renew_at()));
    assert!(
        (at(57)..=at(60)).contains(&made.leaf.renew_at()),
        "{}",
        made.leaf.renew_at()
    );
    let years = |years: i64| at(years * 365);
    assert!((at(2798)..=years(8)).contains(&signer(&made).renew_at()));
    let before = Timestamp::from_second(made.leaf.renew_at().as_second() - 1).unwrap();
    assert_eq!(judged(&made, before).leaf.as_ref(), Ok(&made.leaf));
    let due = judged(&made, made.leaf.renew_at());
    assert!(matches!(due.leaf, Err(Unfit::Due { .. })), "{due:?}");
    let renewed = issue(due, &server(), LIFETIMES, made.leaf.renew_at()).unwrap();
    assert_eq!(renewed.ca, made.ca);
    assert_ne!(renewed.leaf, made.leaf);
    assert_eq!((renewed.previous.as_ref(), renewed.rotates()), (None, false));
    assert_eq!(
        judged(&renewed, made.leaf.renew_at()).leaf.as_ref(),
        Ok(&renewed.leaf)
    );
}

#[test]
fn certificates_made_together_are_not_renewed_together() {
    let renewals: std::collections::BTreeSet<_> = (0..20).map(|_| fresh(at(0)).leaf.renew_at()).collect();
    assert!(renewals.len() > 10, "{renewals:?}");
}

#[test]
fn a_leaf_never_outlives_its_authority() {
    let lifetimes = Lifetimes {
        ca: Duration::from_hours(48),
        ..LIFETIMES
    };
    let made = complete(None, None, &Usage::default(), lifetimes, at(0));
    assert_eq!(made.leaf.not_after(), signer(&made).not_after());
    let (ca, leaf) = kept(&made);
    assert_eq!(
        complete(Some(&ca), Some(&leaf), &usage(&made), lifetimes, at(1)),
        made
    );
}

#[test]
fn another_lifetime_makes_another_leaf() {
    let made = fresh(at(0));
    let lifetimes = Lifetimes {
        leaf: Duration::from_hours(24),
        ..LIFETIMES
    };
    let (ca, leaf) = kept(&made);
    let renewed = complete(Some(&ca), Some(&leaf), &usage(&made), lifetimes, at(0));
    assert_eq!(renewed.leaf.not_after(), at(1));
    assert_eq!(renewed.ca, made.ca);
}

#[test]
fn what_is_lost_or_spoilt_is_replaced() {
    let made = fresh(at(0));
    let other = fresh(at(0));
    let (ca, leaf) = kept(&made);
    let judge = |ca: Option<&Secret>, leaf: Option<&Secret>| {
        super::judge(
            Stored { ca, leaf },
            &Usage::default(),
            &server(),
            LIFETIMES,
            at(1),
        )
    };

    assert_eq!(judge(Some(&ca), None).leaf, Err(Unfit::Missing));
    assert_eq!(judge(None, Some(&leaf)).ca, Err(Unfit::Missing));
    assert_eq!(judge(Some(&leaf), Some(&leaf)).ca, Err(Unfit::NotAnAuthority));
    assert_eq!(
        judge(Some(&Secret::default()), None).ca,
        Err(Unfit::Unreadable(PairError::Certificate))
    );
    let keyless = secret(signer(&made).certificate_pem(), "");
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
    let stored = Stored {
        ca: Some(&ca),
        leaf: Some(&leaf),
    };
    let judgement = super::judge(stored, &Usage::default(), &renamed, LIFETIMES, at(1));
    assert!(
        matches!(judgement.leaf, Err(Unfit::Unverified(_))),
        "{judgement:?}"
    );
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
fn an_authority_with_a_fifth_left_is_replaced_step_by_step() {
    let old = fresh(at(0));
    let due = signer(&old).renew_at();
    let minute = |minute: i64| Timestamp::from_second(due.as_second() + minute * 60).unwrap();
    let begun = next_turn(&old, &usage(&old), minute(0));
    let next = begun.next.clone().unwrap();
    assert_eq!(begun.ca, old.ca);
    assert_eq!(begun.bundle().matches("BEGIN").count(), 2);
    // The certificate was due too. It is the old authority's: nobody knows the new one.
    assert_ne!(begun.leaf, old.leaf);
    assert_eq!(
        next_turn(&begun, &unsettled(&begun), minute(1)),
        begun,
        "it waits"
    );
    assert_eq!(next_turn(&begun, &usage(&old), minute(1)), begun, "it waits");

    let switched = next_turn(&begun, &usage(&begun), minute(2));
    assert_eq!((signer(&switched), &switched.next), (&next, &None));
    assert_eq!(switched.previous.as_ref(), Some(&begun.leaf));
    assert_eq!(switched.bundle(), begun.bundle(), "the order never changes it");
    assert_eq!(next_turn(&switched, &usage(&switched), minute(3)), switched);

    let done = next_turn(&switched, &confirmed(&switched), minute(4));
    assert_eq!((signer(&done), &done.leaf), (&next, &switched.leaf));
    assert_eq!((done.rotates(), &done.previous), (false, &None));
    assert_eq!(done.bundle(), next.certificate_pem());
    assert_eq!(next_turn(&done, &usage(&done), minute(5)), done);
}

#[test]
fn a_refused_certificate_gives_way_to_the_one_before_until_it_is_tried_again() {
    let old = fresh(at(0));
    let due = signer(&old).renew_at();
    let begun = next_turn(&old, &usage(&old), due);
    let switched = next_turn(&begun, &usage(&begun), due);
    let refused = Usage {
        refused: true,
        ..unsettled(&switched)
    };
    let back = next_turn(&switched, &refused, due);
    assert_eq!((&back.ca, &back.leaf), (&switched.ca, &begun.leaf));
    assert_eq!(next_turn(&back, &refused, due), back);
    let again = next_turn(&back, &usage(&back), due);
    assert_eq!(again.previous.as_ref(), Some(&begun.leaf));
    assert_ne!(again.leaf, begun.leaf);
}

#[test]
fn an_authority_that_is_lost_is_still_trusted_while_it_is_shown() {
    let old = fresh(at(0));
    let (_, leaf) = kept(&old);
    let lost = complete(None, Some(&leaf), &unsettled(&old), LIFETIMES, at(1));
    assert_ne!(lost.ca, old.ca);
    assert_eq!(lost.leaf, old.leaf, "nobody knows the new authority yet");
    assert_eq!(lost.bundle().matches("BEGIN").count(), 2);
    let waiting = next_turn(&lost, &unsettled(&lost), at(1));
    assert_eq!(waiting, lost);
    let switched = next_turn(&lost, &usage(&lost), at(1));
    assert_eq!(switched.previous.as_ref(), Some(&old.leaf));
    assert_eq!(
        next_turn(&switched, &confirmed(&switched), at(1)).bundle(),
        signer(&lost).certificate_pem()
    );
    // Both lost: servers have the certificate mounted for a while.
    let both = complete(None, None, &unsettled(&old), LIFETIMES, at(1));
    assert!(both.bundle().contains(signer(&old).certificate_pem().trim()));
    // Another one of ours in its place, which nobody trusts.
    let (other, _) = kept(&fresh(at(0)));
    let swapped = complete(Some(&other), Some(&leaf), &unsettled(&old), LIFETIMES, at(1));
    assert_eq!(swapped.leaf, old.leaf);
    assert!(swapped.bundle().contains(signer(&old).certificate_pem().trim()));
}

#[test]
fn what_has_expired_is_replaced_at_once() {
    let old = fresh(at(0));
    let now = at(4000);
    let new = next_turn(&old, &usage(&old), now);
    assert_eq!((&new.next, new.rotates()), (&None, false));
    assert_eq!(new.bundle(), signer(&new).certificate_pem());
    assert!(new.leaf.not_after() > now);
}

#[test]
fn a_clock_that_steps_back_loses_nothing() {
    let made = fresh(at(10));
    let early = next_turn(&made, &usage(&made), at(0));
    assert_eq!(early.ca, made.ca);
    assert!(
        early.next.is_some(),
        "one that is valid by this clock is brought in"
    );
    let right = next_turn(&early, &usage(&early), at(10));
    assert!(right.bundle().contains(signer(&made).certificate_pem().trim()));
}

/// Found by the property test: the clock of the turn that made the certificate was ahead, that of the next one is right.
#[test]
fn an_authority_lost_under_a_clock_that_steps_back_far_is_still_trusted() {
    let old = fresh(at(10));
    let (_, leaf) = kept(&old);
    let early = at(10) - BACKDATE - Duration::from_secs(1);
    let lost = complete(None, Some(&leaf), &unsettled(&old), LIFETIMES, early);
    assert_ne!(lost.ca, old.ca);
    assert_eq!(lost.leaf, old.leaf, "nobody knows the new authority yet");
    assert!(lost.bundle().contains(signer(&old).certificate_pem().trim()));
}

#[test]
fn what_is_no_authority_is_never_trusted() {
    let old = fresh(at(0));
    let nonsense = format!(
        "x{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        old.leaf.certificate_pem()
    );
    for (published, now) in [
        (nonsense, at(1)),
        (signer(&old).certificate_pem().to_owned(), at(3650)),
    ] {
        let (_, leaf) = kept(&old);
        let usage = Usage {
            published,
            ..Usage::default()
        };
        let stored = Stored {
            ca: None,
            leaf: Some(&leaf),
        };
        let judgement = judge(stored, &usage, &server(), LIFETIMES, now);
        assert_eq!(judgement.retired, []);
        assert!(judgement.leaf.is_err());
    }
}
