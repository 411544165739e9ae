//! A serving certificate that somebody else keeps.

use super::*;

/// A Secret that somebody else keeps.
fn given_by(certificates: &Certificates) -> Secret {
    let (_, mut secret) = kept(certificates);
    let authority = signer(certificates).certificate_pem().as_bytes().to_vec();
    let data = secret.data.as_mut().unwrap();
    data.insert(BUNDLE.to_owned(), ByteString(authority));
    secret
}

fn taken(secret: &Secret, before: Option<&Certificates>, usage: &Usage, day: i64) -> Certificates {
    let secrets = before.map(kept_by_us);
    let stored = Stored {
        ca: None,
        leaf: secrets.as_ref(),
    };
    take(
        given(secret, &server(), at(day)),
        stored,
        usage,
        &server(),
        at(day),
    )
    .unwrap()
    .0
}

/// The serving Secret, as it is stored where somebody else keeps the certificate.
fn kept_by_us(certificates: &Certificates) -> Secret {
    let mut secret = stored(&certificates.leaf);
    let data = secret.data.as_mut().unwrap();
    data.insert(BUNDLE.to_owned(), ByteString(certificates.bundle().into_bytes()));
    if let Some(previous) = &certificates.previous {
        let text = |text: &str| ByteString(text.as_bytes().to_vec());
        data.insert(PREVIOUS.0.to_owned(), text(previous.certificate_pem()));
        data.insert(PREVIOUS.1.to_owned(), text(previous.key_pem()));
    }
    secret
}

#[test]
fn somebody_elses_certificate_is_taken_when_its_authority_is_known() {
    let (one, other) = (fresh(at(0)), fresh(at(0)));
    let (given_one, given_other) = (given_by(&one), given_by(&other));
    let first = taken(&given_one, None, &Usage::default(), 1);
    assert_eq!(
        (&first.leaf, &first.ca, first.renew_at()),
        (&one.leaf, &None, None)
    );
    assert_eq!(first.bundle(), one.bundle());
    // The same is taken from the operator's own certificate on.
    for before in [&first, &fresh(at(0))] {
        let waiting = taken(&given_other, Some(before), &unsettled(before), 1);
        assert_eq!(waiting.leaf, before.leaf);
        assert_eq!(waiting.bundle().matches("BEGIN").count(), 2);
        assert_eq!(
            taken(&given_other, Some(&waiting), &unsettled(&waiting), 1),
            waiting
        );
        let switched = taken(&given_other, Some(&waiting), &usage(&waiting), 1);
        assert_eq!(
            (&switched.leaf, switched.previous.as_ref()),
            (&other.leaf, Some(&before.leaf))
        );
        assert_eq!(switched.bundle(), waiting.bundle());
        let refused = Usage {
            refused: true,
            ..unsettled(&switched)
        };
        let back = taken(&given_other, Some(&switched), &refused, 1);
        assert_eq!(back.leaf, before.leaf);
        assert_eq!(taken(&given_other, Some(&back), &refused, 1).leaf, before.leaf);
        let done = taken(&given_other, Some(&switched), &confirmed(&switched), 1);
        assert_eq!((done.bundle(), done.rotates()), (other.bundle(), false));
        assert_eq!(done.previous, None);
    }
    // And back to the operator's own.
    let leaf = kept_by_us(&first);
    let own = complete(None, Some(&leaf), &unsettled(&first), LIFETIMES, at(1));
    assert_eq!((&own.leaf, own.rotates()), (&one.leaf, true));
}

#[test]
fn somebody_elses_bad_certificate_is_named_and_the_last_good_one_stays() {
    let good = fresh(at(0));
    let first = taken(&given_by(&good), None, &Usage::default(), 1);
    let with = |key: &str, text: &str| {
        let mut secret = given_by(&good);
        let data = secret.data.as_mut().unwrap();
        data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
        secret
    };
    let elsewhere = Server {
        dns_names: vec!["elsewhere.shop.svc".to_owned()],
        ..server()
    };
    let judgement = judge(Stored::default(), &Usage::default(), &elsewhere, LIFETIMES, at(0));
    let named = issue(judgement, &elsewhere, LIFETIMES, at(0)).unwrap();
    let other = fresh(at(1));
    let cases = [
        (with("tls.crt", "x"), 1, "tls.crt is not a PEM certificate"),
        (with("tls.key", ""), 1, "tls.key is not a PEM private key"),
        (
            with("tls.key", other.leaf.key_pem()),
            1,
            "tls.key is not the key of tls.crt",
        ),
        (with("ca.crt", ""), 1, "ca.crt holds no certificate authority"),
        (with("ca.crt", &other.bundle()), 1, "UnknownIssuer"),
        (
            given_by(&named),
            1,
            "not good for front.shop.svc and front.shop.svc.cluster.local",
        ),
        (given_by(&good), 91, "which is not now"),
        (given_by(&good), -1, "which is not now"),
    ];
    for (secret, day, expected) in cases {
        let fault = given(&secret, &server(), at(day)).unwrap_err();
        assert!(fault.contains(expected), "{fault}, expected {expected}");
        let leaf = kept_by_us(&first);
        let stored = Stored {
            ca: None,
            leaf: Some(&leaf),
        };
        let (kept, named) = take(Err(fault.clone()), stored, &usage(&first), &server(), at(1)).unwrap();
        assert_eq!((&kept.leaf, kept.bundle()), (&first.leaf, first.bundle()));
        assert_eq!(named.as_ref(), Some(&fault));
        let nothing = take(
            Err(fault.clone()),
            Stored::default(),
            &Usage::default(),
            &server(),
            at(1),
        );
        assert_eq!(nothing.unwrap_err(), fault);
    }
}
