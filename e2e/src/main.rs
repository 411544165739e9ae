//! `cargo e2e`: see README.md.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    metricsstack_e2e::cli::run().await
}
