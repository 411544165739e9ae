//! What clients showed that spoke for somebody else, as kube-apiservers do: certificates that were believed, and why the
//! last one was not. kube-apiserver only says `Unauthorized` to its own clients, and nobody but who sees its front-proxy
//! certificate knows when that ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Longest text that is kept, in characters: whoever can connect writes part of it.
const LONGEST: usize = 300;
/// Certificates that are kept: more than a cluster has kube-apiservers, even while all of them are replaced.
const MOST: usize = 16;

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

/// A certificate of a front proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontProxyCertificate {
    /// Its common name.
    pub common_name: String,
    /// When it begins.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

/// Who came as a front proxy. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct FrontProxies(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    /// With the time of each one's last request, give or take a minute.
    believed: Vec<(SystemTime, FrontProxyCertificate)>,
    refused: Option<FrontProxyRefusal>,
}

impl FrontProxies {
    /// The certificates of front proxies whose requests came not longer ago than `within`, the first to end first.
    #[must_use]
    pub fn certificates(&self, within: Duration, now: SystemTime) -> Vec<FrontProxyCertificate> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back makes nothing old.
        let recent = shown
            .believed
            .iter()
            .filter(|(seen, _)| now.duration_since(*seen).unwrap_or_default() <= within);
        let mut recent: Vec<_> = recent.map(|(_, certificate)| certificate.clone()).collect();
        recent.sort_by_key(|certificate| certificate.not_after);
        recent
    }

    /// The last client that was refused, if there was any. Anybody who reaches the port can cause one: it explains what
    /// fails, and is no sign that something does.
    #[must_use]
    pub fn last_refusal(&self) -> Option<FrontProxyRefusal> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.refused.clone()
    }

    pub(crate) fn believe(&self, certificate: &FrontProxyCertificate, now: SystemTime) {
        let certificate = FrontProxyCertificate {
            common_name: plain(&certificate.common_name),
            ..certificate.clone()
        };
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let believed = &mut shown.believed;
        believed.retain(|(_, known)| *known != certificate);
        if believed.len() >= MOST {
            believed.remove(0);
        }
        believed.push((now, certificate));
    }

    pub(crate) fn refuse(&self, fault: FrontProxyFault, message: &str) {
        let refusal = FrontProxyRefusal {
            fault,
            message: plain(message),
            at: SystemTime::now(),
        };
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.refused = Some(refusal);
    }
}

fn plain(text: &str) -> String {
    let plain = |char: char| if char.is_control() { ' ' } else { char };
    text.chars().map(plain).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(days: u64) -> FrontProxyCertificate {
        FrontProxyCertificate {
            common_name: "front-proxy-client".to_owned(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH + Duration::from_hours(24 * days),
        }
    }

    #[test]
    fn certificates_are_known_for_a_while_after_their_last_request() {
        let (proxies, now) = (
            FrontProxies::default(),
            SystemTime::UNIX_EPOCH + Duration::from_hours(1),
        );
        let minutes = |count| Duration::from_mins(count);
        proxies.believe(&certificate(365), now);
        proxies.believe(&certificate(9), now + minutes(1));
        proxies.believe(&certificate(365), now + minutes(2));
        let known = |after| proxies.certificates(minutes(5), now + minutes(after));
        assert_eq!(known(6), [certificate(9), certificate(365)]);
        assert_eq!(known(7), [certificate(365)]);
        assert_eq!(known(8), []);
        assert_eq!(known(0).len(), 2, "a clock that was set back");
    }

    #[test]
    fn the_oldest_makes_room() {
        let (proxies, now) = (FrontProxies::default(), SystemTime::UNIX_EPOCH);
        let mut control = certificate(1000);
        control.common_name = format!("a\n{}", "b".repeat(LONGEST));
        proxies.believe(&control, now);
        let text = proxies.certificates(Duration::ZERO, now).remove(0).common_name;
        assert!(text.starts_with("a bb") && text.len() == LONGEST, "{text}");
        for days in 0..MOST as u64 {
            proxies.believe(&certificate(days), now);
        }
        let known = proxies.certificates(Duration::ZERO, now);
        assert_eq!(known, (0..MOST as u64).map(certificate).collect::<Vec<_>>());
    }
}
