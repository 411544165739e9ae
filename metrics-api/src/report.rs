//! What `/debug/nodes` says: the nodes, and who came as a front proxy.

use std::time::{Duration, SystemTime};

use contract::report::{self, NodeReport};
use extension_apiserver::{FrontProxies, FrontProxyCertificate, FrontProxyFault, FrontProxyRefusal};
use jiff::Timestamp;

use crate::scrape::board::Board;

/// How long a refusal is told: the operator reads metrics, and this, twice a minute.
const TOLD_FOR: Duration = Duration::from_mins(2);
/// The same of a certificate, which each kube-apiserver may not show to each replica twice a minute.
const SHOWN_WITHIN: Duration = Duration::from_mins(5);

/// The report at `now`.
#[must_use]
pub fn report(board: &Board, front_proxies: &FrontProxies, now: SystemTime) -> NodeReport {
    let certificates = front_proxies.certificates(SHOWN_WITHIN, now);
    NodeReport {
        front_proxy: front_proxies
            .last_refusal()
            .and_then(|refusal| told(&refusal, now)),
        front_proxy_certificates: certificates.into_iter().filter_map(shown).collect(),
        ..board.report()
    }
}

fn told(refusal: &FrontProxyRefusal, now: SystemTime) -> Option<report::FrontProxyRefusal> {
    if now.duration_since(refusal.at).is_ok_and(|age| age > TOLD_FOR) {
        return None;
    }
    let fault = match refusal.fault {
        FrontProxyFault::UnknownAuthority => report::FrontProxyFault::UnknownAuthority,
        FrontProxyFault::AuthorityExpired => report::FrontProxyFault::AuthorityExpired,
        FrontProxyFault::Expired => report::FrontProxyFault::Expired,
        FrontProxyFault::WrongUsage => report::FrontProxyFault::WrongUsage,
        FrontProxyFault::NameNotAllowed => report::FrontProxyFault::NameNotAllowed,
        FrontProxyFault::NotPublished | FrontProxyFault::Invalid => report::FrontProxyFault::Other,
    };
    Some(report::FrontProxyRefusal {
        fault,
        message: refusal.message.clone(),
        at: Timestamp::try_from(refusal.at).ok()?.to_string(),
    })
}

/// Nothing of one that ends when no calendar reaches.
fn shown(certificate: FrontProxyCertificate) -> Option<report::FrontProxyCertificate> {
    let text = |time: SystemTime| Some(Timestamp::try_from(time).ok()?.to_string());
    Some(report::FrontProxyCertificate {
        not_before: text(certificate.not_before)?,
        not_after: text(certificate.not_after)?,
        common_name: certificate.common_name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_shown_with_its_times() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let certificate = |not_after| FrontProxyCertificate {
            common_name: "front-proxy-client".to_owned(),
            not_before: at,
            not_after,
        };
        let expected = report::FrontProxyCertificate {
            common_name: "front-proxy-client".to_owned(),
            not_before: "2026-09-21T14:13:20Z".to_owned(),
            not_after: "2026-09-22T14:13:20Z".to_owned(),
        };
        assert_eq!(shown(certificate(at + Duration::from_hours(24))), Some(expected));
        let never = at + Duration::from_secs(1 << 50);
        assert_eq!(shown(certificate(never)), None);
    }

    #[test]
    fn a_refusal_is_told_for_a_while() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let refusal = FrontProxyRefusal {
            fault: FrontProxyFault::NameNotAllowed,
            message: "no".to_owned(),
            at,
        };
        let expected = report::FrontProxyRefusal {
            fault: report::FrontProxyFault::NameNotAllowed,
            message: "no".to_owned(),
            at: "2026-09-21T14:13:20Z".to_owned(),
        };
        assert_eq!(told(&refusal, at + TOLD_FOR), Some(expected.clone()));
        // A clock that was set back loses nothing.
        assert_eq!(told(&refusal, at - TOLD_FOR), Some(expected));
        assert_eq!(told(&refusal, at + TOLD_FOR + Duration::from_secs(1)), None);
    }
}
