//! Clients that were refused though they spoke for somebody else: mostly kube-apiserver itself, with a front-proxy
//! certificate that is not trusted. It only says `Unauthorized` to its own clients; why is known here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Longest message that is kept, in characters: whoever can connect writes part of it.
const LONGEST: usize = 300;

/// Why a certificate is not the front proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontProxyFault {
    /// kube-apiserver publishes no authority of front proxies.
    NotPublished,
    /// The certificate does not lead to that authority: another one, or another key of the same name.
    UnknownAuthority,
    /// Every published authority has expired.
    AuthorityExpired,
    /// It has expired or is not valid yet.
    Expired,
    /// It is not for client authentication.
    WrongUsage,
    /// Its common name is not among those that are allowed.
    NameNotAllowed,
    /// It cannot be used for another reason.
    Invalid,
}

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontProxyRefusal {
    /// Why.
    pub fault: FrontProxyFault,
    /// The same in one line.
    pub message: String,
    /// When.
    pub at: SystemTime,
}

/// The last refusal of a client that named a user in the front proxy's headers. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct FrontProxyRefusals(Arc<Mutex<Option<FrontProxyRefusal>>>);

impl FrontProxyRefusals {
    /// The last one, if there was any. Anybody who reaches the port can cause one: it explains what fails, and is no
    /// sign that something does.
    #[must_use]
    pub fn last(&self) -> Option<FrontProxyRefusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn record(&self, fault: FrontProxyFault, message: &str) {
        let plain = |char: char| if char.is_control() { ' ' } else { char };
        let refusal = FrontProxyRefusal {
            fault,
            message: message.chars().map(plain).take(LONGEST).collect(),
            at: SystemTime::now(),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }
}
