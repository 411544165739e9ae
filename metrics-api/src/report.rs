//! What `/debug/nodes` says: the nodes, and who was taken for no front proxy.

use std::time::{Duration, SystemTime};

use contract::report::{self, NodeReport};
use extension_apiserver::{FrontProxyFault, FrontProxyRefusal, FrontProxyRefusals};
use jiff::Timestamp;

use crate::scrape::board::Board;

/// How long a refusal is told: the operator reads metrics, and this, twice a minute.
const TOLD_FOR: Duration = Duration::from_mins(2);

/// The report at `now`.
#[must_use]
pub fn report(board: &Board, refusals: &FrontProxyRefusals, now: SystemTime) -> NodeReport {
    NodeReport {
        front_proxy: refusals.last().and_then(|refusal| told(&refusal, now)),
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

#[cfg(test)]
mod tests {
    use super::*;

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
