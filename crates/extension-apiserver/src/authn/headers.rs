//! Who the front proxy says it speaks for.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::config::{AuthenticationConfig, FrontProxy};
use super::peer::Judgement;
use super::{Presented, User};

/// What kube-apiservers call the header with the user's name.
const USERNAME_HEADER: &str = "x-remote-user";

/// Who a client with a judged certificate is: whom the front proxy names, or else the certificate's own user.
pub(crate) fn identify(
    config: &AuthenticationConfig,
    judgement: &Judgement,
    headers: &HeaderMap,
) -> Presented {
    let proxy = config.front_proxy.as_ref();
    let (no_proxy, refused) = match (&judgement.front_proxy, proxy) {
        (Ok(_), Some(proxy)) => match named(proxy, headers) {
            Ok(Some(user)) => return Presented::User(user),
            Ok(None) => ("the front proxy named no user", None),
            Err(reason) => return Presented::Refused { reason, proxy: None },
        },
        (Ok(_), None) => ("no front proxy is published", None),
        (Err(refusal), _) => (refusal.message.as_str(), Some(refusal)),
    };
    match &judgement.user {
        Ok(user) => Presented::User(user.clone()),
        Err(no_user) => Presented::Refused {
            reason: format!("{no_proxy}; {no_user}"),
            proxy: refused.filter(|_| names_somebody(proxy, headers)).cloned(),
        },
    }
}

/// Whether the client names a user as a front proxy does.
pub(crate) fn names_somebody(proxy: Option<&FrontProxy>, headers: &HeaderMap) -> bool {
    match proxy {
        Some(proxy) => proxy
            .username_headers
            .iter()
            .any(|name| headers.contains_key(name)),
        None => headers.contains_key(USERNAME_HEADER),
    }
}

/// The user in the headers of a request that the front proxy sent; `None` if it names nobody.
fn named(proxy: &FrontProxy, headers: &HeaderMap) -> Result<Option<User>, String> {
    let Some(name) = only(&proxy.username_headers, headers)? else {
        return Ok(None);
    };
    let mut groups = Vec::new();
    for header in &proxy.group_headers {
        for value in headers.get_all(header) {
            let group = text(header, value)?;
            if !group.is_empty() {
                groups.push(group.to_owned());
            }
        }
    }
    let user = User {
        name: name.to_owned(),
        uid: only(&proxy.uid_headers, headers)?.unwrap_or_default().to_owned(),
        groups,
        extra: extra(&proxy.extra_prefixes, headers)?,
    };
    Ok(Some(user.authenticated()))
}

/// The value of the first of these headers that has one. Two different values are nobody's: one of them was smuggled in.
fn only<'a>(names: &[HeaderName], headers: &'a HeaderMap) -> Result<Option<&'a str>, String> {
    for name in names {
        let mut value = "";
        for next in headers.get_all(name) {
            let next = text(name, next)?;
            if !value.is_empty() && next != value {
                return Err(format!("header {name} has more than one value"));
            }
            value = next;
        }
        if !value.is_empty() {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn extra(prefixes: &[String], headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut extra = BTreeMap::<_, Vec<_>>::new();
    for prefix in prefixes {
        for (name, value) in headers {
            if let Some(key) = name.as_str().strip_prefix(prefix)
                && !key.is_empty()
            {
                let value = text(name, value)?.to_owned();
                extra.entry(unescape(key)).or_default().push(value);
            }
        }
    }
    Ok(extra)
}

fn text<'a>(name: &HeaderName, value: &'a HeaderValue) -> Result<&'a str, String> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| format!("header {name} is not UTF-8"))
}

/// Resolves `%xx`; a key that is not well escaped is taken as it is.
fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.extend(u8::try_from(high * 16 + low)),
            _ => return key.to_owned(),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}
