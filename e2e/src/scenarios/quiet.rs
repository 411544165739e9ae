//! A cluster in which nothing happens.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};

use super::audit::{self, Call, Caller};
use super::context::Context;

/// How long is looked at.
const QUIET: SignedDuration = SignedDuration::from_mins(3);
/// After that it must have begun.
const SETTLED: SignedDuration = SignedDuration::from_mins(1);

/// From a minute on in which nobody touches the stack, the operator writes nothing but its Lease for three minutes. The
/// scenarios before have left the stack alone, so that some of that time has passed.
pub(super) async fn is_not_written_to(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let began = Timestamp::now();
    loop {
        let calls = audit::calls(context).await?;
        let calls: Vec<_> = calls
            .iter()
            .filter(|call| call.caller == Caller::Operator)
            .collect();
        let now = Timestamp::now();
        let recent = calls.iter().filter(|call| now.duration_since(call.at) < QUIET);
        let recent: Vec<_> = recent.collect();
        ensure!(
            recent.iter().any(|call| call.verb == "get"),
            "the audit log has nothing of the operator"
        );
        let writes: Vec<_> = recent.iter().filter(|call| writes(call)).collect();
        let Some(last) = writes.last() else {
            let leases = recent
                .iter()
                .filter(|call| call.resource == "leases" && call.verb != "get");
            context.say(format_args!(
                "{} calls in three minutes, {} of them for the Lease, no other write",
                recent.len(),
                leases.count()
            ));
            return Ok(());
        };
        let until = last.at + QUIET;
        if until > began + SETTLED + QUIET {
            let writes: Vec<_> = writes
                .iter()
                .map(|call| format!("{} {}", call.at, call.describe()))
                .collect();
            bail!("{} writes: {}", writes.len(), writes.join(", "));
        }
        context.say(format_args!(
            "three quiet minutes would end at {until}, after {}",
            last.describe()
        ));
        let left = until.duration_since(now) + SignedDuration::from_secs(1);
        tokio::time::sleep(Duration::try_from(left)?).await;
    }
}

/// Whether a call changes something. A token that is asked for is stored nowhere.
fn writes(call: &Call) -> bool {
    let reads = ["get", "list", "watch"].contains(&call.verb.as_str());
    !reads && call.resource != "leases" && call.resource != "serviceaccounts/token"
}
