//! Reconciles `MetricsStack`: one resource gives a cluster the Metrics API.
//!
//! The steps of a reconcile are the modules of that name: [`observe`], [`plan`], [`desired`], [`apply`], [`verify`],
//! [`diagnose`], [`status`]. Those that compute take no client and no clock: time is an argument.

pub mod adopt;
pub mod api;
pub mod api_servers;
pub mod apply;
pub mod certificates;
pub mod cluster;
pub mod contest;
pub mod controller;
pub mod delete_stack;
pub mod desired;
pub mod diagnose;
mod drift;
pub mod events;
#[cfg(test)]
mod fake;
pub mod finalize;
#[cfg(test)]
mod fixtures;
mod home;
mod kinds;
mod kubelet_certificates;
mod lease;
pub mod metrics;
pub mod monitoring;
pub mod observe;
mod ownership;
pub mod plan;
pub mod reconcile;
pub mod registration;
pub mod repair;
pub mod reports;
mod restart;
pub mod rotation;
pub mod status;
pub mod verify;
mod watches;
