//! Whether the Lease is still this replica's. kube-lease-manager goes on trying when it cannot renew a Lease, and never
//! says so: whoever was the leader would go on writing beside the next one. So the holder looks for himself.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{Api, Client};
use tokio::time::Instant;

use crate::cluster::{self, LEASE};

/// How long a Lease is good for after its last renewal.
pub(crate) const DURATION: Duration = Duration::from_secs(15);
/// How long before its end it is renewed.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// Pause between looks.
const PAUSE: Duration = Duration::from_secs(2);

/// Why the Lease is not ours any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Somebody deleted it.
    Gone,
    /// Another replica holds it.
    Taken(String),
    /// It was not seen to be renewed for as long as it is good for, and why that may be.
    Expired(Option<String>),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it was deleted"),
            Self::Taken(holder) => write!(f, "{holder:?} holds it"),
            Self::Expired(None) => write!(f, "it was not renewed for {DURATION:?}"),
            Self::Expired(Some(error)) => write!(f, "it could not be read for {DURATION:?}: {error}"),
        }
    }
}

/// What its holder has seen of the Lease.
struct Tenure<'a> {
    instance: &'a str,
    renewed: Option<MicroTime>,
    /// When that was seen to change.
    since: Instant,
}

impl Tenure<'_> {
    /// Takes one look into account. Time is counted from what was seen to change, so that clocks need not agree.
    fn look(&mut self, read: Result<Option<Lease>, String>, now: Instant) -> Option<Loss> {
        let error = match read {
            Ok(None) => return Some(Loss::Gone),
            Ok(Some(lease)) => {
                let spec = lease.spec.unwrap_or_default();
                let holder = spec.holder_identity.unwrap_or_default();
                if holder != self.instance {
                    return Some(Loss::Taken(holder));
                }
                if spec.renew_time != self.renewed {
                    self.renewed = spec.renew_time;
                    self.since = now;
                }
                None
            }
            Err(error) => Some(error),
        };
        (now.duration_since(self.since) >= DURATION).then_some(Loss::Expired(error))
    }
}

/// Returns when the Lease, which `instance` holds, is lost.
pub(crate) async fn lost(client: &Client, namespace: &str, instance: &str) -> Loss {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let mut tenure = Tenure {
        instance,
        renewed: None,
        since: Instant::now(),
    };
    loop {
        // A call that hangs must not keep the end of the Lease from being seen.
        let read = match tokio::time::timeout(PAUSE, api.get_opt(LEASE)).await {
            Ok(read) => read.map_err(|error| cluster::describe(&error)),
            Err(_) => Err(format!("no answer within {PAUSE:?}")),
        };
        if let Some(loss) = tenure.look(read, Instant::now()) {
            return loss;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns when there is no Lease: whoever waits for one goes on failing and never makes another.
pub(crate) async fn gone(client: &Client, namespace: &str) {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    loop {
        tokio::time::sleep(DURATION).await;
        if let Ok(None) = api.get_metadata_opt(LEASE).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::{Fake, status};

    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/metricsstack-operator";

    fn lease(holder: &str, renewed: u32) -> serde_json::Value {
        json!({"metadata": {"name": LEASE}, "spec": {
            "holderIdentity": holder, "renewTime": format!("2026-11-24T05:00:{renewed:02}.000000Z")}})
    }

    /// How it was lost, and after how long.
    async fn loss(fake: &Fake) -> (Loss, Duration) {
        let start = Instant::now();
        let loss = lost(&fake.client(), "ns", "us").await;
        (loss, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_of_somebody_else_or_of_nobody_is_lost_at_once() {
        let fake = Fake::default();
        assert_eq!(loss(&fake).await, (Loss::Gone, Duration::ZERO));
        fake.put(PATH, lease("them", 0));
        assert_eq!(
            loss(&fake).await,
            (Loss::Taken("them".to_owned()), Duration::ZERO)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_not_renewed_is_lost_when_it_ends() {
        let fake = Fake::default();
        fake.put(PATH, lease("us", 0));
        let (loss, after) = loss(&fake).await;
        assert_eq!(loss, Loss::Expired(None));
        assert!(after >= DURATION && after <= DURATION + PAUSE, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_cannot_be_read_is_lost_when_it_ends() {
        let fake = Fake::default();
        fake.always(
            &format!("GET {PATH}"),
            503,
            status(503, "ServiceUnavailable", "away"),
        );
        let (loss, after) = loss(&fake).await;
        assert_eq!(loss, Loss::Expired(Some("away (503)".to_owned())));
        assert!(after <= DURATION + PAUSE, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_renewed_is_kept() {
        let fake = Fake::default();
        let renewals = async {
            for renewal in 0..6 {
                fake.put(PATH, lease("us", renewal * 10));
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
            fake.put(PATH, lease("them", 59));
        };
        let ((), (loss, after)) = tokio::join!(renewals, loss(&fake));
        assert_eq!(loss, Loss::Taken("them".to_owned()));
        assert!(after >= Duration::from_mins(1), "{after:?}");
    }
}
