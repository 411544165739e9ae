//! A small aggregated API: notes in namespaces, kept in memory.
//!
//! ```text
//! notes CERTIFICATE KEY [ADDRESS]
//! ```
//!
//! docs/extension-apiserver.md says how to put it into a cluster. What is particular about notes is in this file;
//! everything else is the library's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use extension_apiserver::json::JsonArray;
use extension_apiserver::memory::{Kind, Memory};
use extension_apiserver::status::Cause;
use extension_apiserver::{
    ApiGroup, Column, HealthCheck, ResourceInfo, Server, ServerBuilder, ServingCertificate, VersionInfo,
};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

const GROUP: &str = "notes.example.dev";
/// Changes that watches can still be told of.
const HISTORY: usize = 1000;
const LONGEST_TEXT: usize = 1000;

/// A note says something.
struct Note;

impl Kind for Note {
    fn validate(&self, object: &Value, _before: Option<&Value>) -> Vec<Cause> {
        match object.pointer("/spec/text") {
            None => vec![Cause::required("spec.text", "a note says something")],
            Some(Value::String(text)) if text.len() <= LONGEST_TEXT => Vec::new(),
            Some(Value::String(text)) => {
                let expected = format!("must have at most {LONGEST_TEXT} bytes");
                vec![Cause::invalid(
                    "spec.text",
                    &format_args!("{} bytes", text.len()),
                    &expected,
                )]
            }
            Some(found) => vec![Cause::invalid("spec.text", found, "must be a string")],
        }
    }

    fn write_cells(&self, object: &Value, cells: &mut JsonArray<'_>) {
        for pointer in ["/metadata/name", "/spec/text", "/metadata/creationTimestamp"] {
            cells.string(
                object
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .unwrap_or_default(),
            );
        }
    }
}

fn notes() -> Memory {
    let schema = json!({
        "description": "Note is something worth remembering.",
        "required": ["spec"],
        "properties": {"spec": {"$ref": "NoteSpec"}},
    });
    let spec = json!({
        "description": "NoteSpec is what a note says.",
        "type": "object",
        "required": ["text"],
        "properties": {"text": {"type": "string", "description": "What the note says, in at most 1000 bytes."}},
    });
    let info = ResourceInfo::namespaced("notes", "Note")
        .singular("note")
        .short_names(["nt"])
        .columns([
            Column::NAME,
            Column::string("Text", ""),
            Column::string("Created", "date-time"),
        ])
        .schema(schema)
        .model("NoteSpec", spec);
    Memory::new(GROUP, info, Note, HISTORY)
}

fn server(client: kube::Client, certificate: ServingCertificate) -> ServerBuilder {
    let group = ApiGroup {
        name: GROUP,
        versions: vec!["v1"],
        resources: vec![Arc::new(notes())],
    };
    Server::builder(client, group, certificate)
        .version(VersionInfo {
            git_version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
            ..VersionInfo::default()
        })
        .health_check(HealthCheck::live("notes", || Ok(())))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (certificate, key, address) = match arguments.as_slice() {
        [certificate, key] => (certificate, key, "[::]:8443"),
        [certificate, key, address] => (certificate, key, address.as_str()),
        found => bail!(
            "expected CERTIFICATE KEY [ADDRESS], found {} arguments",
            found.len()
        ),
    };
    let address: SocketAddr = address
        .parse()
        .with_context(|| format!("expected ADDRESS to be an IP and a port, found {address:?}"))?;
    let certificate = ServingCertificate::Files {
        certificate: PathBuf::from(certificate),
        key: PathBuf::from(key),
    };
    // The client of the cluster takes the process's default.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        bail!("another implementation of cryptography is installed already");
    }
    let client = kube::Client::try_default()
        .await
        .context("failed to set up the client of kube-apiserver")?;
    let server = server(client, certificate).bind(address).await?;
    tracing::info!(address = %server.local_addr()?, "serving {GROUP}");
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    server.serve(shutdown).await?;
    Ok(())
}
