//! The one-machine Kubernetes of the tests, the demo, the scenarios.

fn main() {}
