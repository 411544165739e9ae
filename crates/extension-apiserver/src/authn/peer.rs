//! What a client's certificate chain is worth against the authorities of the moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use tokio::sync::watch;
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

use super::config::{AuthenticationConfig, FrontProxy, Roots};
use super::watch::Published;
use super::{NoProxy, Presented, User, headers};
use crate::front_proxies::{FrontProxyCertificate, FrontProxyFault};

/// How long a judgement is kept at most, so that what passes with time (an authority's end) is seen.
const KEPT: Duration = Duration::from_mins(1);
/// Certificates and bytes of the longest chain that is kept with a connection.
const LONGEST_CHAIN: (usize, usize) = (8, 16 * 1024);

/// What a chain is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// The front proxy's certificate that it is, or why it is none.
    pub(crate) front_proxy: Result<FrontProxyCertificate, NoProxy>,
    /// The user that it is itself.
    pub(crate) user: Result<User, String>,
    /// When the first certificate of the chain ends.
    not_after: UnixTime,
}

impl Judgement {
    fn is_worth_something(&self) -> bool {
        self.front_proxy.is_ok() || self.user.is_ok()
    }
}

/// Judges a chain, leaf first. The errors are for the log.
pub(crate) fn judge(config: &AuthenticationConfig, chain: &[CertificateDer<'_>], now: UnixTime) -> Judgement {
    let leaf = chain.first().and_then(|der| {
        let (_, leaf) = x509_parser::parse_x509_certificate(der).ok()?;
        Some(leaf)
    });
    let Some(leaf) = leaf else {
        let undecodable = "the certificate cannot be decoded".to_owned();
        return Judgement {
            front_proxy: Err(no_proxy(FrontProxyFault::Invalid, undecodable.clone())),
            user: Err(undecodable),
            not_after: now,
        };
    };
    let not_after = since_epoch(leaf.validity().not_after);
    Judgement {
        front_proxy: front_proxy(config.front_proxy.as_ref(), &leaf, chain, now),
        user: user(config.client_ca.as_ref(), &leaf, chain, now),
        not_after: UnixTime::since_unix_epoch(not_after),
    }
}

fn front_proxy(
    proxy: Option<&FrontProxy>,
    leaf: &X509Certificate<'_>,
    chain: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<FrontProxyCertificate, NoProxy> {
    let Some(proxy) = proxy else {
        let message = "no authority of a front proxy is published".to_owned();
        return Err(no_proxy(FrontProxyFault::NotPublished, message));
    };
    verify(&proxy.roots, chain, now).map_err(|Unverified { fault, message }| {
        no_proxy(fault, format!("by requestheader-client-ca-file: {message}"))
    })?;
    let name = common_name(leaf).unwrap_or_default();
    if proxy.allowed_names.is_empty() || proxy.allowed_names.iter().any(|allowed| allowed == name) {
        let validity = leaf.validity();
        Ok(FrontProxyCertificate {
            common_name: name.to_owned(),
            not_before: SystemTime::UNIX_EPOCH + since_epoch(validity.not_before),
            not_after: SystemTime::UNIX_EPOCH + since_epoch(validity.not_after),
        })
    } else {
        let allowed = &proxy.allowed_names;
        let message = format!("common name {name:?} is not in requestheader-allowed-names {allowed:?}");
        Err(no_proxy(FrontProxyFault::NameNotAllowed, message))
    }
}

/// Before 1970 counts as 1970.
fn since_epoch(time: ASN1Time) -> Duration {
    Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
}

fn no_proxy(fault: FrontProxyFault, message: String) -> NoProxy {
    NoProxy { fault, message }
}

fn user(
    client_ca: Option<&Roots>,
    leaf: &X509Certificate<'_>,
    chain: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<User, String> {
    let client_ca = client_ca.ok_or("no authority of client certificates is published")?;
    verify(client_ca, chain, now).map_err(|error| format!("by client-ca-file: {}", error.message))?;
    let name = common_name(leaf)
        .filter(|name| !name.is_empty())
        .ok_or("the certificate has no common name")?;
    let organizations = leaf.subject().iter_organization();
    Ok(User {
        name: name.to_owned(),
        groups: organizations
            .filter_map(|group| group.as_str().ok().map(str::to_owned))
            .collect(),
        ..User::default()
    }
    .authenticated())
}

/// The last common name, as Go takes it.
fn common_name<'a>(leaf: &'a X509Certificate<'_>) -> Option<&'a str> {
    leaf.subject().iter_common_name().last()?.as_str().ok()
}

/// Why a chain does not hold.
struct Unverified {
    fault: FrontProxyFault,
    message: String,
}

/// Whether the chain leads to one of `roots`, is valid at `now` and is meant for clients.
fn verify(roots: &Roots, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Unverified> {
    let unverified = |fault, message: &str| Unverified {
        fault,
        message: message.to_owned(),
    };
    let (leaf, intermediates) = chain
        .split_first()
        .ok_or_else(|| unverified(FrontProxyFault::Invalid, "there is no certificate"))?;
    let roots = roots.at(now);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, crate::tls::provider())
        .build()
        .map_err(|_| unverified(FrontProxyFault::AuthorityExpired, "every authority has expired"))?;
    match verifier.verify_client_cert(leaf, intermediates, now) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InvalidCertificate(error)) => {
            Err(unverified(fault(&error), &format!("{error:?}")))
        }
        Err(error) => Err(unverified(FrontProxyFault::Invalid, &error.to_string())),
    }
}

fn fault(error: &CertificateError) -> FrontProxyFault {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => FrontProxyFault::Expired,
        // The signature does not hold when an authority was made anew under the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => FrontProxyFault::UnknownAuthority,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            FrontProxyFault::WrongUsage
        }
        _ => FrontProxyFault::Invalid,
    }
}

/// The certificate chain of one connection, with the last judgement on it.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    chain: Vec<CertificateDer<'static>>,
    /// The chain is longer than any that proves something, and not kept.
    too_long: bool,
    judged: Mutex<Option<Judged>>,
    /// Whether the last judgement was that it is the front proxy.
    front_proxy: AtomicBool,
    /// Whether a judgement that it is the front proxy is not told yet.
    news: AtomicBool,
    /// Whether certificate or token of a request were accepted.
    recognized: AtomicBool,
}

#[derive(Debug, Clone)]
struct Judged {
    generation: u64,
    at: UnixTime,
    judgement: Arc<Judgement>,
}

impl Peer {
    /// A connection that came with this chain, or none.
    pub(crate) fn new(chain: &[CertificateDer<'_>]) -> Self {
        let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
        let too_long = chain.len() > LONGEST_CHAIN.0 || bytes > LONGEST_CHAIN.1;
        let chain = if too_long { &[] } else { chain };
        let own = |certificate: &CertificateDer<'_>| certificate.clone().into_owned();
        Self {
            chain: chain.iter().map(own).collect(),
            too_long,
            ..Self::default()
        }
    }

    /// Certificate or token of a request were accepted.
    pub(crate) fn recognize(&self) {
        self.recognized.store(true, Ordering::Relaxed);
    }

    /// Whether certificate or token of any request were accepted.
    pub(crate) fn is_recognized(&self) -> bool {
        self.recognized.load(Ordering::Relaxed)
    }

    /// Whether the last judgement was that it is the front proxy.
    pub(crate) fn is_front_proxy(&self) -> bool {
        self.front_proxy.load(Ordering::Relaxed)
    }

    /// The front proxy's certificate, once for each judgement, and only if it speaks for somebody: where one authority
    /// signs both, an ordinary client's would do too.
    pub(crate) fn news_of_front_proxy(
        &self,
        published: &Published,
        headers: &http::HeaderMap,
    ) -> Option<FrontProxyCertificate> {
        let proxy = published.config.front_proxy.as_ref();
        if !self.news.load(Ordering::Relaxed) || !headers::names_somebody(proxy, headers) {
            return None;
        }
        self.news.store(false, Ordering::Relaxed);
        let judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        judged.as_ref()?.judgement.front_proxy.clone().ok()
    }

    /// What certificate and headers say now.
    pub(crate) fn present(
        &self,
        published: &Published,
        headers: &http::HeaderMap,
        now: UnixTime,
    ) -> Presented {
        if self.too_long {
            let (certificates, bytes) = LONGEST_CHAIN;
            return Presented::Refused {
                reason: format!("the chain is longer than {certificates} certificates or {bytes} bytes"),
                proxy: None,
            };
        }
        if self.chain.is_empty() {
            return Presented::Nothing;
        }
        let judgement = self.judgement(published, now);
        self.front_proxy
            .store(judgement.front_proxy.is_ok(), Ordering::Relaxed);
        headers::identify(&published.config, &judgement, headers)
    }

    /// Waits until a chain that was worth something is worth nothing any more, because the authorities have changed or
    /// it has ended.
    pub(crate) async fn distrusted(&self, mut published: watch::Receiver<Arc<Published>>) {
        if self.chain.is_empty() {
            return std::future::pending().await;
        }
        let mut trusted = false;
        loop {
            let now = UnixTime::now();
            let current = Arc::clone(&published.borrow_and_update());
            let worth = self.judgement(&current, now).is_worth_something();
            if trusted && !worth {
                return;
            }
            trusted |= worth;
            // Who publishes ends with the server.
            let _changed = tokio::time::timeout(KEPT, published.changed()).await;
        }
    }

    /// The judgement on the chain; the last one while neither the authorities nor the chain's validity have changed.
    fn judgement(&self, published: &Published, now: UnixTime) -> Arc<Judgement> {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = judged.as_ref()
            && last.generation == published.generation
            && last.at <= now
            && now.as_secs() - last.at.as_secs() < KEPT.as_secs()
            && (now <= last.judgement.not_after || last.judgement.not_after < last.at)
        {
            return Arc::clone(&last.judgement);
        }
        let judgement = Arc::new(judge(&published.config, &self.chain, now));
        self.news.store(judgement.front_proxy.is_ok(), Ordering::Relaxed);
        *judged = Some(Judged {
            generation: published.generation,
            at: now,
            judgement: Arc::clone(&judgement),
        });
        judgement
    }
}
