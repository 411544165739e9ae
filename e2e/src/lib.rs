//! The one-machine Kubernetes of the tests, the demo and the scenarios: what stands behind `cargo e2e`.
//!
//! [`tools`] builds Kubernetes from its Go modules, [`cluster`] makes nodes of namespaces and kubeadm's phases,
//! [`images`] packs our own programs, [`cli`] is the command line.

pub mod cli;
pub mod cluster;
pub mod command;
pub mod demo;
pub mod go_module;
pub mod host;
pub mod image;
pub mod images;
pub mod paths;
pub mod previous;
pub mod progress;
pub mod scenarios;
pub mod test;
pub mod tools;
