//! What the tests stand on.

pub(crate) mod api;
pub(crate) mod kubelet;
pub(crate) mod pki;

use std::{sync::Arc, time::Duration};

use metrics_api::{
    kubelet::{
        address::Guard,
        client::{KubeletClient, KubeletOptions, SHARED_ROOM},
        records::Records,
        tls::TlsMode,
    },
    token::{TokenSource, Tokens, bearer},
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use self::{api::FakeApi, pki::Authority};

/// A kubelet's answer, as recorded from a real one.
pub(crate) const METRICS: &[u8] = include_bytes!("../../fixtures/metrics-resource.prom");
/// The same kubelet's Summary API.
pub(crate) const SUMMARY: &[u8] = include_bytes!("../../fixtures/stats-summary.json");
/// UID of the node that tests are about.
pub(crate) const UID: &str = "d60d38f6-6e71-416b-97ce-00f6ce32dce1";
/// What kubelets may see only once they are trusted.
pub(crate) const TOKEN: &str = "the-token";

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Options that verify against `authority`, with a patience that no healthy exchange needs.
pub(crate) fn options(mode: TlsMode, authority: &Authority) -> KubeletOptions {
    KubeletOptions {
        mode,
        authority: (mode != TlsMode::Insecure).then(|| authority.trusted()),
        records: None,
        tokens: Some(Tokens::start(TokenSource::Fixed(bearer(TOKEN).unwrap()))),
        identity: None,
        room: SHARED_ROOM,
        guard: Guard {
            loopback: true,
            ..Guard::default()
        },
        timeout: Duration::from_secs(20),
    }
}

pub(crate) fn client(mode: TlsMode, authority: &Authority) -> KubeletClient {
    KubeletClient::new(options(mode, authority), provider())
}

/// Mode `Auto`, with records at `api`.
pub(crate) fn auto(authority: &Authority, api: &FakeApi) -> KubeletClient {
    let records = Some(Arc::new(Records::new(api.config_maps())));
    KubeletClient::new(
        KubeletOptions {
            records,
            ..options(TlsMode::Auto, authority)
        },
        provider(),
    )
}
