//! What any Kubernetes extension API server needs around its resources.

pub mod health;
pub mod json;
pub mod options;
pub mod resource;
pub mod server;
pub mod status;

pub use health::HealthCheck;
pub use options::{ApiGroup, Authentication, Authorization, Limits, ServingCertificate, VersionInfo};
pub use resource::{Column, Item, Key, ListScope, Resource, ResourceInfo};
pub use server::{BoundServer, Server, ServerBuilder};
pub use status::Status;
