//! Certificates that were not renewed in time, as metrics-api's replicas show them.

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Finding, Reason, Severity};
use crate::certificates;
use crate::certificates::BACKDATE;
use crate::observe::Observed;
use crate::plan::Plan;

/// Which end soon. What a replica serves counts, not only what is stored.
pub(super) fn findings(observed: &Observed, plan: Option<&Plan>, findings: &mut Vec<Finding>) {
    let stored = plan.map(|plan| {
        let leaf = &plan.certificates.leaf;
        (
            "The serving certificate".to_owned(),
            leaf.made(),
            leaf.not_after(),
        )
    });
    let stored_der = plan.map(|plan| plan.certificates.leaf.certificate());
    let served = observed.served.iter().filter_map(|(pod, served)| {
        let served = served.as_ref().ok()?;
        if Some(served) == stored_der {
            return None;
        }
        let (begins, ends) = validity(served)?;
        Some((format!("What Pod {pod} serves"), begins + BACKDATE, ends))
    });
    for (what, begins, ends) in stored.into_iter().chain(served) {
        let left = ends.duration_since(observed.at);
        if left <= certificates::late(ends.duration_since(begins)) {
            let severity = if left <= SignedDuration::ZERO {
                Severity::Failure
            } else {
                Severity::Warning
            };
            let evidence = format!("{what} is valid until {ends}");
            findings.push(Finding::new(Reason::CertificateExpires, severity, evidence));
        }
    }
}

fn validity(der: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((at(validity.not_before)?, at(validity.not_after)?))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::json;

    use super::*;
    use crate::fixtures::{now, planned, two_nodes};

    #[test]
    fn what_ends_within_a_sixth_of_its_lifetime_is_late_and_then_a_failure() {
        let planned = |validity: &str| {
            planned(&json!({"certificates": {"leafValidity": validity}}), &two_nodes()).unwrap()
        };
        let (plan, other) = (planned("60h"), planned("60h"));
        let at = |hours: i64| {
            let served = |plan: &Plan| Ok(plan.certificates.leaf.certificate().clone());
            let observed = Observed {
                at: now() + SignedDuration::from_hours(hours),
                served: vec![
                    ("metrics-api-1".to_owned(), served(&plan)),
                    ("metrics-api-2".to_owned(), served(&other)),
                    ("metrics-api-3".to_owned(), Err("no answer".to_owned())),
                ],
                ..two_nodes()
            };
            let mut found = Vec::new();
            findings(&observed, Some(&plan), &mut found);
            found
        };
        assert_eq!(at(49), []);
        let late = at(51);
        let severities: Vec<_> = late.iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, [Severity::Warning; 2]);
        let ends = plan.certificates.leaf.not_after();
        assert_eq!(
            late[0].evidence,
            format!("The serving certificate is valid until {ends}")
        );
        assert_eq!(
            late[1].evidence,
            format!("What Pod metrics-api-2 serves is valid until {ends}")
        );
        assert!(at(61).iter().all(|finding| finding.severity == Severity::Failure));
    }
}
