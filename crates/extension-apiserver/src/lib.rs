//! What any Kubernetes extension API server needs around its resources.
