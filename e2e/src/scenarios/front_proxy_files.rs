//! kube-apiserver's front proxy as the control plane keeps it: files that kube-apiserver reads again when they change.

use anyhow::Result;

use super::context::Context;
use super::pki::Identity;
use crate::command;

const PKI: &str = "/etc/kubernetes/pki";
const AUTHORITY_FILE: &str = "front-proxy-ca.crt";
const KEY_FILE: &str = "front-proxy-client.key";
/// The file with its certificate.
pub(super) const CERTIFICATE_FILE: &str = "front-proxy-client.crt";

/// What a front proxy shows, and whom it is believed by. PEM.
pub(super) struct FrontProxy {
    pub(super) authority: String,
    pub(super) certificate: String,
    pub(super) key: String,
}

impl FrontProxy {
    /// The one that the control plane has.
    pub(super) async fn read(context: &Context) -> Result<Self> {
        let read = async |file: &str| context.control_plane_file(&format!("{PKI}/{file}")).await;
        Ok(Self {
            authority: read(AUTHORITY_FILE).await?,
            certificate: read(CERTIFICATE_FILE).await?,
            key: read(KEY_FILE).await?,
        })
    }

    pub(super) fn identity(&self) -> Result<Identity> {
        Identity::from_pem(&self.certificate, &self.key)
    }
}

/// Gives the control plane another authority to publish.
pub(super) async fn write_authority(context: &Context, authority: &str) -> Result<()> {
    write(context, AUTHORITY_FILE, authority).await
}

/// Gives it another certificate to show.
pub(super) async fn write_certificate(context: &Context, certificate: &str, key: &str) -> Result<()> {
    write(context, KEY_FILE, key).await?;
    write(context, CERTIFICATE_FILE, certificate).await
}

/// Puts a file in another's place, so that none is ever seen half written.
async fn write(context: &Context, file: &str, text: &str) -> Result<()> {
    let mut command = context.cluster.node_command(1, "sh")?;
    let script = r#"cat > "$1.new" && chmod --reference="$1" "$1.new" && mv "$1.new" "$1""#;
    command.args(["-c", script, "sh", &format!("{PKI}/{file}")]);
    command::output_of_input(command, text.as_bytes()).await?;
    Ok(())
}
