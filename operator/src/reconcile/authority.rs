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
