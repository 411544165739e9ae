//! What any Kubernetes extension API server needs around its resources.

mod answer;
mod authn;
mod authz;
mod body;
mod cache;
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

pub use health::{HealthCheck, HealthEndpoint};
pub use options::{
    ApiGroup, Authentication, Authorities, Authorization, FrontProxyFiles, Limits, NamedCertificate,
    ServingCertificate, TlsOptions, TlsVersion, VersionInfo,
};
pub use resource::{Column, Item, Key, ListScope, Resource, ResourceInfo};
pub use selector::check_label_selector;
pub use server::{BoundServer, ServeError, Server, ServerBuilder};
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
