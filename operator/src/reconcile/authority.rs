//! The certificate authority as it was stored last: somebody may delete or spoil its Secret.

use contract::names;
use k8s_openapi::api::core::v1::Secret;

use crate::certificates::KeyPair;
use crate::desired::Objects;
use crate::observe::Observed;

/// The certificate authority's Secret.
pub(super) fn of(objects: &Objects) -> Option<Secret> {
    let secret = objects.base.iter().find(|object| object.is_authority())?;
    secret.object.clone().try_parse().ok()
}

/// Puts the known one in the place of what is there. Says what that was.
pub(super) fn recall(known: Option<&Secret>, observed: &mut Observed) -> Option<String> {
    let known = known?;
    let found = match &observed.ca_secret {
        None => "it was deleted".to_owned(),
        Some(secret) if secret.data != known.data => spoilt(secret),
        Some(_) => return None,
    };
    observed.ca_secret = Some(known.clone());
    Some(format!("{}: {found}, and comes back as it was", names::CA_SECRET))
}

fn spoilt(secret: &Secret) -> String {
    let data = |key| {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        value.map_or(&[] as &[u8], |value| value.0.as_slice())
    };
    match KeyPair::parse(data(names::TLS_CERTIFICATE), data(names::TLS_KEY)) {
        Ok(_) => "it was changed".to_owned(),
        Err(fault) => format!("it was changed: {fault}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_in_the_place_of_the_authority_is_said_without_its_key() {
        let secret = |certificate: &str, key: &str| -> Secret {
            let data = json!({names::TLS_CERTIFICATE: certificate, names::TLS_KEY: key});
            serde_json::from_value(json!({"data": data})).unwrap()
        };
        // Base64 of words.
        let known = secret("a25vd24=", "c2VjcmV0");
        let recalled = |found: Option<Secret>| {
            let mut observed = Observed {
                ca_secret: found,
                ..Observed::default()
            };
            let said = recall(Some(&known), &mut observed);
            assert_eq!(observed.ca_secret.as_ref(), Some(&known));
            said
        };
        assert_eq!(recalled(Some(known.clone())), None);
        assert_eq!(
            recalled(None).unwrap(),
            "metrics-api-ca: it was deleted, and comes back as it was"
        );
        assert_eq!(
            recalled(Some(secret("Z2FyYmFnZQ==", "c2VjcmV0"))).unwrap(),
            "metrics-api-ca: it was changed: tls.crt is not a PEM certificate, and comes back as it was"
        );
        // A process that has just started knows none.
        assert_eq!(recall(None, &mut Observed::default()), None);
    }
}
