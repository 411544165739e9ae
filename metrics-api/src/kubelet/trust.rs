//! Trust on first use, as a state machine. Pure: [`super::records`] reads and writes the records.

use contract::{
    report::{ErrorClass, NodeError, TlsState},
    trust::TrustRecord,
};

use super::tls::Presented;

/// What follows from a certificate and the record of the Node that showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is what the record says.
    Trust,
    /// It may be trusted once this is recorded.
    Record(TrustRecord),
    /// It is not trusted.
    Refuse(ErrorClass),
}

/// Judges a kubelet by what it showed and what is on record.
///
/// A node whose certificate chains once is `verified` from then on, also when it was pinned before: a self-signed
/// certificate, even the one that was pinned, is a step back that only somebody in between profits from.
#[must_use]
pub fn decide(presented: &Presented, record: Option<&TrustRecord>) -> Decision {
    match (presented, record) {
        (Presented::Unchecked, _) | (Presented::Verified, Some(TrustRecord::Verified)) => Decision::Trust,
        (Presented::Verified, None | Some(TrustRecord::Pinned(_))) => Decision::Record(TrustRecord::Verified),
        (Presented::Foreign(key), None) => Decision::Record(TrustRecord::Pinned(key.0.clone())),
        (Presented::Foreign(key), Some(TrustRecord::Pinned(pinned))) if key.0 == *pinned => Decision::Trust,
        (Presented::Foreign(_), Some(TrustRecord::Pinned(_))) => Decision::Refuse(ErrorClass::TlsKeyChanged),
        (Presented::Foreign(_), Some(TrustRecord::Verified)) => Decision::Refuse(ErrorClass::TlsDowngrade),
    }
}

/// The state of a connection that is trusted.
#[must_use]
pub fn state(presented: &Presented) -> TlsState {
    match presented {
        Presented::Verified => TlsState::Verified,
        Presented::Foreign(_) => TlsState::Pinned,
        Presented::Unchecked => TlsState::Insecure,
    }
}

/// The error of a kubelet that was refused, with what whoever is in charge can do.
#[must_use]
pub fn refusal(class: ErrorClass, node_uid: &str, config_map: &str) -> NodeError {
    let what = match class {
        ErrorClass::TlsKeyChanged => {
            "the kubelet shows another public key than the one recorded at first use"
        }
        ErrorClass::TlsDowngrade => {
            "the kubelet's certificate was verified before and no longer chains to the cluster's authority"
        }
        _ => "the kubelet's certificate is not trusted",
    };
    let message = format!(
        "{what}; if that is on purpose, remove the key {node_uid} from ConfigMap {config_map} to trust it anew"
    );
    NodeError { class, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::tls::Fingerprint;

    fn foreign(key: &str) -> Presented {
        Presented::Foreign(Fingerprint(key.repeat(64)))
    }

    fn pinned(key: &str) -> TrustRecord {
        TrustRecord::Pinned(key.repeat(64))
    }

    #[test]
    fn every_meeting_has_one_outcome() {
        use Decision::{Record, Refuse, Trust};
        let verified = || Some(TrustRecord::Verified);
        let table = [
            (
                "first meeting, chains",
                Presented::Verified,
                None,
                Record(TrustRecord::Verified),
            ),
            ("verified as ever", Presented::Verified, verified(), Trust),
            (
                "pinned, now verified",
                Presented::Verified,
                Some(pinned("a")),
                Record(TrustRecord::Verified),
            ),
            (
                "first meeting, self-signed",
                foreign("a"),
                None,
                Record(pinned("a")),
            ),
            ("the pinned key", foreign("a"), Some(pinned("a")), Trust),
            (
                "another key",
                foreign("b"),
                Some(pinned("a")),
                Refuse(ErrorClass::TlsKeyChanged),
            ),
            (
                "verified, now self-signed",
                foreign("a"),
                verified(),
                Refuse(ErrorClass::TlsDowngrade),
            ),
            ("insecure, nothing known", Presented::Unchecked, None, Trust),
            ("insecure, pinned", Presented::Unchecked, Some(pinned("a")), Trust),
        ];
        for (name, presented, record, expected) in table {
            assert_eq!(decide(&presented, record.as_ref()), expected, "{name}");
        }
    }

    #[test]
    fn what_is_recorded_is_trusted_the_next_time() {
        for presented in [Presented::Verified, foreign("a")] {
            for record in [
                None,
                Some(TrustRecord::Verified),
                Some(pinned("a")),
                Some(pinned("b")),
            ] {
                if let Decision::Record(written) = decide(&presented, record.as_ref()) {
                    assert_eq!(
                        decide(&presented, Some(&written)),
                        Decision::Trust,
                        "{presented:?} {record:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_refusal_names_the_record_and_what_to_do() {
        let error = refusal(ErrorClass::TlsKeyChanged, "uid-1", "shard-07");
        assert!(
            error.message.contains("uid-1") && error.message.contains("shard-07"),
            "{}",
            error.message
        );
    }
}
