//! Towards kubelets: which address to dial ([`address`]), how the serving certificate is judged ([`tls`], by
//! [`authority`] and, in mode `Auto`, [`trust`] with its [`records`]), what it is shown besides a token ([`identity`]), and
//! one kept connection a node ([`client`]).

pub mod address;
mod answer;
pub mod authority;
pub mod client;
mod connection;
pub mod identity;
pub mod records;
pub mod tls;
pub mod trust;

/// An error of that class. Never with what the kubelet sent.
fn error(class: contract::report::ErrorClass, message: impl Into<String>) -> contract::report::NodeError {
    contract::report::NodeError {
        class,
        message: message.into(),
    }
}
