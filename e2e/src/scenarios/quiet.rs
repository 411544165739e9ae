//! A cluster in which nothing happens.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};

use super::audit::{self, Call, Caller};
use super::context::Context;

/// After this nothing is left to be done for a new stack.
const SETTLED: SignedDuration = SignedDuration::from_mins(1);
/// How long is looked at.
const QUIET: SignedDuration = SignedDuration::from_mins(3);

/// For three minutes, from a minute after the stack became ready, the operator writes nothing but its Lease. The
/// scenarios before have left the stack alone, and that time has mostly passed.
pub(super) async fn is_not_written_to(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let stack = context.ready().await?;
    let since = stack
        .condition("Ready")
        .and_then(|ready| ready["lastTransitionTime"].as_str());
    let since: Timestamp = since.context("Ready has no time")?.parse()?;
    let until = since + SETTLED + QUIET;
    if let Ok(left) = Duration::try_from(until.duration_since(Timestamp::now())) {
        context.say(format_args!(
            "{} s until three quiet minutes have passed",
            left.as_secs()
        ));
        tokio::time::sleep(left).await;
    }
    let from = Timestamp::now() - QUIET;
    let calls = audit::calls(context).await?;
    let calls: Vec<_> = calls
        .into_iter()
        .filter(|call| call.caller == Caller::Operator && call.at >= from)
        .collect();
    ensure!(
        calls.iter().any(|call| call.verb == "get"),
        "the audit log has nothing of the operator"
    );
    let writes: Vec<_> = calls
        .iter()
        .filter(|call| writes(call))
        .map(Call::describe)
        .collect();
    if !writes.is_empty() {
        bail!("{} writes in {QUIET:#}: {}", writes.len(), writes.join(", "));
    }
    let leases = calls
        .iter()
        .filter(|call| call.resource == "leases" && call.verb != "get")
        .count();
    context.say(format_args!(
        "{} calls in three minutes, {leases} of them for the Lease, no other write",
        calls.len()
    ));
    Ok(())
}

/// Whether a call changes something. A token that is asked for is stored nowhere.
fn writes(call: &Call) -> bool {
    let reads = ["get", "list", "watch"].contains(&call.verb.as_str());
    !reads && call.resource != "leases" && call.resource != "serviceaccounts/token"
}
