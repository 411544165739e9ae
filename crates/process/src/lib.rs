//! Telemetry, shutdown, admin port and Kubernetes client set-up.
