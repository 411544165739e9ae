//! Every flag of metrics-server 0.9, and what becomes of it here.
//!
//! The command line is walked by this table before anything else reads it: what has no effect is taken out with one
//! warning, what would be misunderstood is refused by name with what to use instead, and the rest is
//! [`super::Flags`]'. docs/compatibility.md is made from the same table.

use std::{ffi::OsString, fmt::Write as _};

use super::FlagError;

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It does what it does there, except for what this says.
    Honoured(&'static str),
    /// It is accepted and does nothing, because of this.
    Ignored(&'static str),
    /// It is an error; this is to be used instead.
    Refused(&'static str),
}

/// One flag of metrics-server.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name, without the dashes.
    pub name: &'static str,
    /// Whether a value must follow. Booleans stand alone.
    pub takes_value: bool,
    /// What becomes of it.
    pub class: Class,
}

const fn value(name: &'static str, class: Class) -> Known {
    Known {
        name,
        takes_value: true,
        class,
    }
}

const fn switch(name: &'static str, class: Class) -> Known {
    Known {
        name,
        takes_value: false,
        class,
    }
}

const SAME: Class = Class::Honoured("");
const OR_KUBECONFIG: Class =
    Class::Honoured("Without it that of --kubeconfig is taken; there the pod's own cluster.");
const NO_EFFECT_THERE: Class = Class::Ignored("it has no effect in metrics-server either");
const NO_GATES: Class =
    Class::Refused("leave it out: metrics-server refuses every value of it, and there are no gates here");
const NO_AUDIT: Class =
    Class::Refused("kube-apiserver's audit log, which has every request that comes through it");
const NO_STREAMS: Class =
    Class::Refused("leave it out: it is alpha there and off, and all lines go to stderr here");

/// All of them, in the order of metrics-server's own help.
pub const KNOWN: &[Known] = &[
    value(
        "kubeconfig",
        Class::Honoured(
            "It is used for authentication and authorization too, unless the flags for those name another.",
        ),
    ),
    value(
        "metric-resolution",
        Class::Honoured("The default is 15s, as in metrics-server's manifests; there it is 1m0s."),
    ),
    switch(
        "version",
        Class::Honoured("It prints this program's own version."),
    ),
    value(
        "kubelet-port",
        Class::Honoured("Without it the port in the Node's status is taken, or 10250."),
    ),
    switch("kubelet-use-node-status-port", SAME),
    value(
        "kubelet-preferred-address-types",
        Class::Honoured(
            "The default begins with InternalIP, as in metrics-server's manifests; there it begins with Hostname.",
        ),
    ),
    value("kubelet-request-timeout", SAME),
    value(
        "kubelet-certificate-authority",
        Class::Honoured("The file is read again when it changes."),
    ),
    value(
        "kubelet-client-certificate",
        Class::Honoured("The file is read again when it changes, and must fit its key."),
    ),
    value("kubelet-client-key", SAME),
    switch("kubelet-insecure-tls", SAME),
    switch(
        "deprecated-kubelet-completely-insecure",
        Class::Refused("--kubelet-insecure-tls: nothing is ever sent to kubelets unencrypted"),
    ),
    value("node-selector", SAME),
    value(
        "advertise-address",
        Class::Ignored("no document of this program holds its address"),
    ),
    value(
        "cors-allowed-origins",
        Class::Honoured(
            "An expression that holds to the host's end by nothing but the colon of https: is an error: it lets in others too.",
        ),
    ),
    value("emulated-version", NO_GATES),
    value("min-compatibility-version", NO_GATES),
    switch("emulation-forward-compatible", NO_EFFECT_THERE),
    switch("runtime-config-emulation-forward-compatible", NO_EFFECT_THERE),
    value(
        "external-hostname",
        Class::Ignored("no document of this program holds its name"),
    ),
    value("feature-gates", NO_GATES),
    value(
        "goaway-chance",
        Class::Honoured("Beside it, connections are asked to end when they are five minutes old."),
    ),
    value(
        "livez-grace-period",
        Class::Ignored("there is nothing at the start that liveness would have to wait for"),
    ),
    value("max-requests-inflight", SAME),
    value(
        "max-mutating-requests-inflight",
        Class::Ignored("nothing can be changed here: such requests are answered 405"),
    ),
    value(
        "min-request-timeout",
        Class::Ignored("it is about watches, which neither program serves"),
    ),
    value("request-timeout", SAME),
    value("shutdown-delay-duration", SAME),
    switch("shutdown-send-retry-after", SAME),
    value(
        "shutdown-watch-termination-grace-period",
        Class::Ignored("it is about watches, which neither program serves"),
    ),
    value("storage-initialization-timeout", NO_EFFECT_THERE),
    value("strict-transport-security-directives", SAME),
    value("bind-address", SAME),
    value("secure-port", Class::Honoured("It must be above 0.")),
    value("cert-dir", SAME),
    value("tls-cert-file", SAME),
    value("tls-private-key-file", SAME),
    value(
        "tls-sni-cert-key",
        Class::Honoured("The files are read again when they change."),
    ),
    value(
        "tls-min-version",
        Class::Honoured("VersionTLS12 or VersionTLS13; older ones are insecure and an error."),
    ),
    value(
        "tls-cipher-suites",
        Class::Honoured(
            "Of TLS 1.2, by their names in Go. Suites without forward secrecy or authenticated encryption are an error.",
        ),
    ),
    value(
        "tls-curve-preferences",
        Class::Honoured("By their numbers: 4588, 29, 23, 24. P-521 (25) is not there and an error."),
    ),
    switch(
        "disable-http2-serving",
        Class::Honoured(
            "True unless it is `=false`: over HTTP/1.1 a replica that is cut off costs kube-apiserver one read, over HTTP/2 all of them for 15 s (docs/operations.md).",
        ),
    ),
    value("http2-max-streams-per-connection", SAME),
    switch(
        "permit-address-sharing",
        Class::Ignored("addresses are always shared (SO_REUSEADDR)"),
    ),
    switch("permit-port-sharing", SAME),
    value("authentication-kubeconfig", OR_KUBECONFIG),
    switch("authentication-skip-lookup", SAME),
    switch("authentication-tolerate-lookup-failure", SAME),
    value("authentication-token-webhook-cache-ttl", SAME),
    value(
        "client-ca-file",
        Class::Honoured("The file is read again each minute."),
    ),
    value(
        "requestheader-client-ca-file",
        Class::Honoured("The file is read again each minute."),
    ),
    value("requestheader-allowed-names", SAME),
    value("requestheader-username-headers", SAME),
    value("requestheader-uid-headers", SAME),
    value("requestheader-group-headers", SAME),
    value("requestheader-extra-headers-prefix", SAME),
    value("authorization-kubeconfig", OR_KUBECONFIG),
    value("authorization-always-allow-paths", SAME),
    value("authorization-webhook-cache-authorized-ttl", SAME),
    value("authorization-webhook-cache-unauthorized-ttl", SAME),
    value("audit-policy-file", NO_AUDIT),
    value("audit-log-path", NO_AUDIT),
    value("audit-log-format", NO_AUDIT),
    value("audit-log-mode", NO_AUDIT),
    value("audit-log-version", NO_AUDIT),
    value("audit-log-maxage", NO_AUDIT),
    value("audit-log-maxbackup", NO_AUDIT),
    value("audit-log-maxsize", NO_AUDIT),
    switch("audit-log-compress", NO_AUDIT),
    value("audit-log-batch-buffer-size", NO_AUDIT),
    value("audit-log-batch-max-size", NO_AUDIT),
    value("audit-log-batch-max-wait", NO_AUDIT),
    switch("audit-log-batch-throttle-enable", NO_AUDIT),
    value("audit-log-batch-throttle-qps", NO_AUDIT),
    value("audit-log-batch-throttle-burst", NO_AUDIT),
    switch("audit-log-truncate-enabled", NO_AUDIT),
    value("audit-log-truncate-max-batch-size", NO_AUDIT),
    value("audit-log-truncate-max-event-size", NO_AUDIT),
    value("audit-webhook-config-file", NO_AUDIT),
    value("audit-webhook-mode", NO_AUDIT),
    value("audit-webhook-initial-backoff", NO_AUDIT),
    value("audit-webhook-version", NO_AUDIT),
    value("audit-webhook-batch-buffer-size", NO_AUDIT),
    value("audit-webhook-batch-max-size", NO_AUDIT),
    value("audit-webhook-batch-max-wait", NO_AUDIT),
    switch("audit-webhook-batch-throttle-enable", NO_AUDIT),
    value("audit-webhook-batch-throttle-qps", NO_AUDIT),
    value("audit-webhook-batch-throttle-burst", NO_AUDIT),
    switch("audit-webhook-truncate-enabled", NO_AUDIT),
    value("audit-webhook-truncate-max-batch-size", NO_AUDIT),
    value("audit-webhook-truncate-max-event-size", NO_AUDIT),
    switch("profiling", NO_EFFECT_THERE),
    switch("contention-profiling", NO_EFFECT_THERE),
    switch("enable-priority-and-fairness", NO_EFFECT_THERE),
    value("debug-socket-path", NO_EFFECT_THERE),
    value(
        "v",
        Class::Honoured("From 4 on debug, from 6 on trace; --log-level comes before it."),
    ),
    value(
        "vmodule",
        Class::Refused("--log-level with directives, such as info,metrics_api::scrape=debug"),
    ),
    value("logging-format", SAME),
    value(
        "log-flush-frequency",
        Class::Ignored("every line is written at once"),
    ),
    switch("log-json-split-stream", NO_STREAMS),
    value("log-json-info-buffer-size", NO_STREAMS),
    switch("log-text-split-stream", NO_STREAMS),
    value("log-text-info-buffer-size", NO_STREAMS),
];

/// A command line, with what has no effect taken out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// The rest, program name included.
    pub arguments: Vec<OsString>,
    /// Names of flags that were taken out, with why they have no effect.
    pub ignored: Vec<(&'static str, &'static str)>,
}

/// Walks a command line, whose first argument is the program's name.
pub fn sort(arguments: impl IntoIterator<Item = OsString>) -> Result<Sorted, FlagError> {
    let mut sorted = Sorted::default();
    let mut arguments = arguments.into_iter();
    sorted.arguments.extend(arguments.next());
    while let Some(argument) = arguments.next() {
        let flag = argument.to_str().and_then(|text| text.strip_prefix("--"));
        if flag == Some("") {
            sorted.arguments.push(argument);
            break;
        }
        let (name, has_value) = match flag.and_then(|flag| flag.split_once('=')) {
            Some((name, _)) => (name, true),
            None => (flag.unwrap_or_default(), false),
        };
        let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
            sorted.arguments.push(argument);
            continue;
        };
        let value = (known.takes_value && !has_value)
            .then(|| arguments.next())
            .flatten();
        match known.class {
            Class::Honoured(_) => sorted.arguments.extend([argument].into_iter().chain(value)),
            Class::Ignored(why) => sorted.ignored.push((known.name, why)),
            Class::Refused(instead) => {
                return Err(FlagError::Refused {
                    flag: known.name,
                    instead,
                });
            }
        }
    }
    sorted.arguments.extend(arguments);
    Ok(sorted)
}

/// The table as docs/compatibility.md has it.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| flag | verdict | how, or why not and what to use |\n|---|---|---|\n");
    for Known { name, class, .. } in KNOWN {
        let (verdict, note) = match class {
            Class::Honoured("") => ("same", String::new()),
            Class::Honoured(note) => ("same", (*note).to_owned()),
            Class::Ignored(why) => ("accepted", format!("Without effect: {why}.")),
            Class::Refused(instead) => ("not", format!("An error. To be used instead: {instead}.")),
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "| `--{name}` | {verdict} | {note} |");
    }
    text
}
