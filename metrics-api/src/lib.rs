//! What metrics-api is made of. A library beside the binary, so that tests reach every part.
//!
//! A kubelet's answer is read by [`decode`] into a batch that borrows from it, [`store`] makes usages of two
//! samples, and [`resources`] answers them for the nodes and pods that [`index`] knows. These parts take no client
//! and no clock of their own.
//!
//! [`scrape`] asks kubelets by way of [`kubelet`], with what [`token`] holds ready; [`watch`] feeds the indexes.
//! [`run`] puts all of it together as [`flags`] say.

pub mod decode;
pub mod flags;
pub mod health;
pub mod index;
pub mod kubelet;
pub mod metrics;
pub mod names;
pub mod procfs;
pub mod quantity;
pub mod report;
pub mod resources;
pub mod run;
pub mod scrape;
pub mod store;
pub mod time;
pub mod token;
pub mod watch;
