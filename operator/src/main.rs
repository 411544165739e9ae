//! Kubernetes operator that reconciles MetricsStack.

fn main() {}
