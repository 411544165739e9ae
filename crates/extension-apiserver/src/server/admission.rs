//! Who may keep a connection open.
//!
//! Whoever has shown a certificate or token that was accepted has a share of their own, so that connections that say
//! nothing, or nothing worth knowing, cannot lock them out. Among the others the newest counts: when their share is
//! full, the oldest is closed. Nobody waits in the listen queue, where kube-apiserver could not be told from others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::options::Limits;

/// Both shares.
#[derive(Debug)]
pub(super) struct Admission {
    proven: Arc<Semaphore>,
    most_unproven: usize,
    unproven: Mutex<Unproven>,
}

/// Connections of clients that have not proved who they are, in the order they came.
#[derive(Debug, Default)]
struct Unproven {
    next: u64,
    open: BTreeMap<u64, CancellationToken>,
}

/// What gave a connection its lasting place.
#[derive(Debug)]
enum Proof {
    /// One of the places of proven clients.
    Counted { _permit: OwnedSemaphorePermit },
    /// The front proxy is always welcome: it speaks for everybody else.
    FrontProxy,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            proven: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            most_unproven: limits.unproven_connections.max(1),
            unproven: Mutex::default(),
        })
    }

    /// A place for a new connection. Says whether another had to go for it.
    pub(super) fn enter(self: &Arc<Self>) -> (Place, bool) {
        let evicted = CancellationToken::new();
        let mut unproven = self.unproven.lock().unwrap_or_else(PoisonError::into_inner);
        let id = unproven.next;
        unproven.next += 1;
        let oldest = if unproven.open.len() < self.most_unproven {
            None
        } else {
            unproven.open.pop_first()
        };
        unproven.open.insert(id, evicted.clone());
        drop(unproven);
        if let Some((_, oldest)) = &oldest {
            oldest.cancel();
        }
        let place = Place {
            admission: Arc::clone(self),
            id,
            evicted,
            proof: OnceLock::new(),
        };
        (place, oldest.is_some())
    }

    fn forget(&self, id: u64) {
        let mut unproven = self.unproven.lock().unwrap_or_else(PoisonError::into_inner);
        unproven.open.remove(&id);
    }
}

/// The place of one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    id: u64,
    evicted: CancellationToken,
    proof: OnceLock<Proof>,
}

impl Place {
    /// The client has proved who it is: from now on the connection stays, if there is room among its like.
    pub(super) fn prove(&self, front_proxy: bool) {
        if self.proof.get().is_some() {
            return;
        }
        let proof = if front_proxy {
            Some(Proof::FrontProxy)
        } else {
            let permit = Arc::clone(&self.admission.proven).try_acquire_owned();
            permit.ok().map(|permit| Proof::Counted { _permit: permit })
        };
        // Of two requests that prove the same at once, either will do.
        if let Some(proof) = proof
            && self.proof.set(proof).is_ok()
        {
            self.admission.forget(self.id);
        }
    }

    /// Completes when the connection has to go.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.forget(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(connections: usize, unproven_connections: usize) -> Arc<Admission> {
        Admission::new(&Limits {
            connections,
            unproven_connections,
            ..Limits::default()
        })
    }

    #[test]
    fn the_oldest_unproven_goes_and_the_proven_stay() {
        let admission = admission(1, 2);
        let enter = || admission.enter().0;
        let gone = |place: &Place| place.evicted.is_cancelled();
        let (first, second, third) = (enter(), enter(), enter());
        assert_eq!([&first, &second, &third].map(gone), [true, false, false]);
        second.prove(false);
        let (fourth, fifth) = (enter(), enter());
        assert_eq!([&second, &third, &fourth].map(gone), [false, true, false]);
        // There is no more room among the proven, except for the front proxy.
        fourth.prove(false);
        fifth.prove(true);
        let rest = [enter(), enter(), enter()];
        assert_eq!([&second, &fourth, &fifth].map(gone), [false, true, false]);
        drop(second);
        let last = &rest[2];
        last.prove(false);
        let _others = [enter(), enter(), enter()];
        assert!(!gone(last));
    }

    #[test]
    fn a_place_that_is_given_back_is_free() {
        let admission = admission(usize::MAX, 1);
        for _ in 0..3 {
            assert!(!admission.enter().1);
        }
        let kept = admission.enter().0;
        assert!(admission.enter().1);
        assert!(kept.evicted.is_cancelled());
    }
}
