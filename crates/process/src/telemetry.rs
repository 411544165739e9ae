//! Log output: one line an event on standard error.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The level is not one.
    #[error(
        "log level {found:?} is not understood ({reason}): expected error, warn, info, debug or trace, \
         or directives such as \"info,kube=debug\""
    )]
    Level {
        /// What was given.
        found: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else in the process has set it up before.
    #[error("logging is set up already")]
    Twice,
}

/// Sends log events of at least `level` to standard error. `level` is a level, or directives as
/// [`EnvFilter`] reads them (`info,kube=debug`).
pub fn init(format: LogFormat, level: &str) -> Result<(), InitError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_writer(io::stderr)
        .with_span_events(FmtSpan::NONE);
    let result = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|_| InitError::Twice)
}

fn filter(level: &str) -> Result<EnvFilter, InitError> {
    let refuse = |reason: String| InitError::Level {
        found: level.to_owned(),
        reason,
    };
    // A lone word that is no level would be taken for the name of a module, and silence everything else.
    if level.trim().is_empty() {
        return Err(refuse("it is empty".to_owned()));
    }
    for directive in level.split(',').filter(|directive| !directive.contains('=')) {
        if directive
            .trim()
            .parse::<tracing::level_filters::LevelFilter>()
            .is_err()
        {
            return Err(refuse(format!("{directive:?} is not a level")));
        }
    }
    EnvFilter::builder()
        .parse(level)
        .map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_taken() {
        for level in [
            "info",
            "WARN",
            "off",
            "info,kube=debug",
            "debug,hyper::proto=warn",
        ] {
            assert!(filter(level).is_ok(), "{level}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_with_what_to_write() {
        let error = filter("verbose").unwrap_err().to_string();
        assert!(
            error.contains("\"verbose\"") && error.contains("expected error, warn"),
            "{error}"
        );
        assert!(filter("").is_err());
        assert!(filter("info,kube=loud").is_err());
    }
}
