//! Which certificate is served to a client that asks for a name.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use super::reload::Current;

/// A certificate and for whom it is.
#[derive(Debug)]
struct Named {
    /// Empty: those in the certificate.
    names: Vec<String>,
    certificate: Current,
}

/// Serves by name what is there by name, and else one for all.
#[derive(Debug)]
pub(super) struct ByName {
    named: Vec<Named>,
    otherwise: Current,
}

impl ByName {
    pub(super) fn new(otherwise: Current) -> Self {
        Self {
            named: Vec::new(),
            otherwise,
        }
    }

    pub(super) fn add(&mut self, names: &[String], certificate: Current) {
        let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        self.named.push(Named { names, certificate });
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fitting = hello.server_name().and_then(|wanted| {
            let wanted = wanted.to_ascii_lowercase();
            self.named.iter().find_map(|named| {
                let certificate = named.certificate.now();
                let own = if named.names.is_empty() {
                    names(&certificate)
                } else {
                    Vec::new()
                };
                let mut names = named.names.iter().chain(&own);
                names.any(|name| fits(name, &wanted)).then_some(certificate)
            })
        });
        Some(fitting.unwrap_or_else(|| self.otherwise.now()))
    }
}

/// Whether a name, which may begin with `*.`, stands for that one.
fn fits(name: &str, wanted: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => wanted
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => name == wanted,
    }
}

/// The names that a certificate is for.
fn names(certificate: &CertifiedKey) -> Vec<String> {
    let Some(Ok((_, leaf))) = certificate
        .cert
        .first()
        .map(|der| x509_parser::parse_x509_certificate(der))
    else {
        return Vec::new();
    };
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        for (name, wanted, fit) in [
            ("a.b", "a.b", true),
            ("a.b", "c.b", false),
            ("*.b", "a.b", true),
            ("*.b", "x.a.b", false),
            ("*.b", ".b", false),
            ("*.b", "b", false),
        ] {
            assert_eq!(fits(name, wanted), fit, "{name} {wanted}");
        }
    }
}
