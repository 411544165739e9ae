//! What any Kubernetes extension API server needs around its resources: TLS with reload, delegated authentication and
//! authorization, discovery, `OpenAPI`, content negotiation, selectors, pages, watches, limits, health, metrics and an end
//! without a failed request. docs/extension-apiserver.md is the guide.
//!
//! A server is an [`ApiGroup`] of [`Resource`]s. Those that are computed implement [`Resource`] and [`Item`]; those that can
//! be changed or watched also the traits of [`mod@write`]; JSON objects in memory need only a [`memory::Kind`]:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use extension_apiserver::json::JsonArray;
//! use extension_apiserver::memory::{Kind, Memory};
//! use extension_apiserver::{ApiGroup, Column, ResourceInfo, Server, ServingCertificate};
//!
//! struct Note;
//!
//! impl Kind for Note {
//!     fn write_cells(&self, note: &serde_json::Value, cells: &mut JsonArray<'_>) {
//!         for field in ["/metadata/name", "/spec/text"] {
//!             cells.string(note.pointer(field).and_then(|value| value.as_str()).unwrap_or_default());
//!         }
//!     }
//! }
//!
//! # async fn serve(client: kube::Client, shutdown: impl Future<Output = ()> + Send) -> Result<(), Box<dyn std::error::Error>> {
//! let info = ResourceInfo::namespaced("notes", "Note").columns([Column::NAME, Column::string("Text", "")]);
//! let group = ApiGroup {
//!     name: "notes.example.dev",
//!     versions: vec!["v1"],
//!     resources: vec![Arc::new(Memory::new("notes.example.dev", info, Note, 1000))],
//! };
//! let certificate = ServingCertificate::Files {
//!     certificate: "/etc/tls/tls.crt".into(),
//!     key: "/etc/tls/tls.key".into(),
//! };
//! let server = Server::builder(client, group, certificate).bind("[::]:8443".parse()?).await?;
//! server.serve(shutdown).await?;
//! # Ok(())
//! # }
//! ```

mod answer;
mod authn;
mod authz;
mod body;
mod cache;
pub mod cors;
pub mod front_proxies;
pub mod health;
pub mod json;
mod listen;
pub mod memory;
mod metrics;
pub mod options;
pub mod protobuf;
mod request;
pub mod resource;
mod review;
mod selector;
pub mod server;
pub mod status;
#[cfg(test)]
mod tests;
mod tls;
pub mod write;

pub use cors::CorsOrigins;
pub use front_proxies::{FrontProxies, FrontProxyCertificate, FrontProxyFault, FrontProxyRefusal};
pub use health::{HealthCheck, HealthEndpoint};
pub use options::{
    ApiGroup, Authentication, Authorities, Authorization, FrontProxyFiles, Limits, NamedCertificate,
    ServingCertificate, TlsOptions, TlsVersion, VersionInfo,
};
pub use resource::{Column, Item, Key, ListScope, Resource, ResourceInfo};
pub use selector::check_label_selector;
pub use server::{BoundServer, ServeError, Server, ServerBuilder, TlsError};
pub use status::Status;

/// An error with its causes, each once: some errors print their cause themselves.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        if !chain.contains(&text) {
            chain.push_str(": ");
            chain.push_str(&text);
        }
        cause = next.source();
    }
    chain
}
