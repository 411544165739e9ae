//! Scraping: one task a node that asks its kubelet ([`kubelets`]) in a rhythm of its own ([`rhythm`]), puts what arrives
//! into the store at once, and writes what happened on the [`board`].

pub mod board;
pub mod fleet;
pub mod kubelets;
pub mod rhythm;
mod taken;
