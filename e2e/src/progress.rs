//! Progress on standard error: one line for each step that takes longer than two seconds.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

/// A step that is over sooner says nothing.
const WORTH_A_LINE: Duration = Duration::from_secs(2);
/// A step that is still under way says so this often.
const REMINDER: Duration = Duration::from_secs(30);

/// Tells the person at the terminal what is under way, with the time since the program started.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    started: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Starts the clock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Prints a line, with the time since the start.
    pub fn say(&self, line: impl Display) {
        eprintln!("[{:>6.1} s] {line}", self.started.elapsed().as_secs_f64());
    }

    /// Runs a step. One that takes more than two seconds gets a line with its duration when it ends, and a reminder
    /// twice a minute until then.
    pub async fn step<T, E>(
        &self,
        what: impl Display,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let mut step = std::pin::pin!(step);
        let outcome = loop {
            match tokio::time::timeout(REMINDER, &mut step).await {
                Ok(outcome) => break outcome,
                Err(_) => self.say(format_args!(
                    "{what} (under way for {} s)",
                    begun.elapsed().as_secs()
                )),
            }
        };
        let took = begun.elapsed();
        match &outcome {
            Ok(_) if took >= WORTH_A_LINE => self.say(format_args!("{what}: {:.1} s", took.as_secs_f64())),
            Ok(_) => {}
            Err(_) => self.say(format_args!("{what}: failed after {:.1} s", took.as_secs_f64())),
        }
        outcome
    }
}
