//! Waiting for conditions.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Looks until `look` succeeds. Its error says what is still missing; the last one is the reason given when the
/// deadline is missed.
pub(super) async fn eventually<T>(
    what: impl Display,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let began = Instant::now();
    let mut last = anyhow!("the first look has no answer");
    loop {
        let left = deadline.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
        // A look that is over at once is never cut off by the timeout.
        if began.elapsed() >= deadline {
            return Err(last.context(format!("{what}: not within {deadline:?}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{bail, ensure};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_success_is_the_answer() {
        let mut looks = 0;
        let found = eventually("three looks", Duration::MAX, async || {
            looks += 1;
            ensure!(looks >= 3, "not yet");
            Ok(looks)
        });
        assert_eq!(found.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_missed_deadline_tells_what_was_missing() {
        let result: Result<()> = eventually("a wonder", Duration::from_millis(1), async || {
            bail!("no wonder yet")
        })
        .await;
        let error = format!("{:#}", result.unwrap_err());
        assert_eq!(error, "a wonder: not within 1ms: no wonder yet");
    }
}
