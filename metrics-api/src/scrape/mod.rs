//! Scraping: one task a node that asks its kubelet in a rhythm of its own ([`rhythm`]), puts what arrives into the
//! store at once, and writes what happened on the [`board`].

pub mod board;
pub mod fleet;
pub mod rhythm;
