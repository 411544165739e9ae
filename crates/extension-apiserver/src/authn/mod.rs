//! Who a client is.
//!
//! What a certificate and headers say is a pure function of the authorities published in the cluster, the chain, the
//! headers and the time: [`peer::judge`] and [`headers::identify`]. Tokens are reviewed by kube-apiserver
//! ([`token`]). Everybody else is anonymous.

pub(crate) mod config;
mod files;
pub(crate) mod headers;
pub(crate) mod peer;
pub(crate) mod token;
pub(crate) mod watch;

use std::collections::BTreeMap;

use http::{HeaderMap, header};

use crate::front_proxies::FrontProxyFault;

/// Group of everybody whose name is known.
const AUTHENTICATED: &str = "system:authenticated";
/// Group of everybody else.
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Name of everybody else.
const ANONYMOUS: &str = "system:anonymous";

/// Who a client is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct User {
    /// Name.
    pub(crate) name: String,
    /// UID, usually empty.
    pub(crate) uid: String,
    /// Groups.
    pub(crate) groups: Vec<String>,
    /// What authorizers may know besides.
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Who did not say who they are.
    pub(crate) fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// Adds the group of those whose name is known, unless the user is anonymous or has either group already.
    fn authenticated(mut self) -> Self {
        let grouped = self
            .groups
            .iter()
            .any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED);
        if self.name != ANONYMOUS && !grouped {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    /// Whether the user may do everything without being asked about.
    pub(crate) fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == "system:masters")
    }
}

/// What certificate and headers say, before tokens are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Presented {
    /// This user.
    User(User),
    /// Nothing: the connection came without a certificate, so headers count for nothing.
    Nothing,
    /// A certificate that proves nothing here.
    Refused {
        /// Why, for the log.
        reason: String,
        /// Why it is not the front proxy's, if the client named a user as that does.
        proxy: Option<NoProxy>,
    },
}

/// Why a certificate is not the front proxy's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoProxy {
    pub(crate) fault: FrontProxyFault,
    /// In one line.
    pub(crate) message: String,
}

/// The bearer token of a request.
pub(crate) fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let mut words = value.split_ascii_whitespace();
    let scheme = words.next()?;
    words.next().filter(|_| scheme.eq_ignore_ascii_case("bearer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        bearer_token(&headers).map(str::to_owned)
    }

    #[test]
    fn only_bearer_tokens_are_tokens() {
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("bearer  abc ").as_deref(), Some("abc"));
        for other in ["Bearer", "Bearer ", "Basic abc", "abc", ""] {
            assert_eq!(token(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_known_user_gets_the_group_of_known_users_once() {
        let user = |name: &str, groups: &[&str]| User {
            name: name.to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            ..User::default()
        };
        assert_eq!(user("a", &["g"]).authenticated().groups, ["g", AUTHENTICATED]);
        for groups in [[AUTHENTICATED], [UNAUTHENTICATED]] {
            assert_eq!(user("a", &groups).authenticated().groups, groups);
        }
        assert!(user(ANONYMOUS, &[]).authenticated().groups.is_empty());
    }
}
