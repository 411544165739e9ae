//! Extension API server that scrapes kubelets and answers metrics.k8s.io.

use std::{net::TcpListener, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser as _;
use metrics_api::{
    flags::{
        Flags, Settings,
        classes::{self, Sorted},
    },
    run,
};

/// A command line that cannot be used, as clap ends with it too.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let understood = classes::sort(std::env::args_os()).and_then(|Sorted { arguments, ignored }| {
        let flags = Flags::parse_from(arguments);
        let format = flags.logging_format;
        Ok((Settings::new(flags, has_ipv6())?, format, ignored))
    });
    let (settings, format, ignored) = match understood {
        Ok(understood) => understood,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(USAGE);
        }
    };
    if let Err(error) = process::telemetry::init(format, &settings.log_level) {
        eprintln!("error: invalid value for --log-level: {error}");
        return ExitCode::from(USAGE);
    }
    if !ignored.is_empty() {
        let flags: Vec<_> = ignored
            .iter()
            .map(|(flag, why)| format!("--{flag} ({why})"))
            .collect();
        tracing::warn!("flags without effect: {}", flags.join(", "));
    }
    match start(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", in_one_line(&error));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn start(settings: Settings) -> anyhow::Result<()> {
    process::client::install_crypto_provider();
    let provider = rustls::crypto::CryptoProvider::get_default().context("there is no crypto provider")?;
    let shutdown = process::shutdown::on_signals().context("failed to listen for signals")?;
    run::run(settings, Arc::clone(provider), shutdown).await
}

/// An error with its causes. Some libraries print an error's cause as part of it: each is said once.
fn in_one_line(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .fold(String::new(), |line, cause| match line.as_str() {
            "" => cause,
            said if said.contains(&cause) => line,
            _ => format!("{line}: {cause}"),
        })
}

/// Whether a socket can listen on all addresses of IPv6.
fn has_ipv6() -> bool {
    TcpListener::bind("[::]:0").is_ok()
}
