//! Extension API server that scrapes kubelets and answers metrics.k8s.io.

fn main() {}
