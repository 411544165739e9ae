//! What the operator and metrics-api share, and nothing else: names of objects and labels, ports and flags
//! ([`names`]), what metrics-api reports about each node ([`report`]), and how a kubelet's identity is
//! recorded ([`trust`]). Data and serde only: no client, no clock.

pub mod names;
pub mod report;
pub mod trust;
