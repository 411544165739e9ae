//! What each program of this workspace needs around its work: log output ([`telemetry`]), the end of the process
//! ([`shutdown`]), the way to the cluster ([`client`]) and a plain port for probes and metrics ([`admin`]).
//!
//! The order in a `main`: [`telemetry::init`], [`client::install_crypto_provider`], [`shutdown::on_signals`],
//! [`client::config`].

pub mod admin;
pub mod client;
pub mod shutdown;
pub mod telemetry;
