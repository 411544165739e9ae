//! The way to the cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// Time to reach kube-apiserver; above it the next try is better than waiting on.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for kube-apiserver to take a request.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence on a connection after which it counts as dead. Longer than a watch that kube-runtime asks for (290 s), so
/// that only hung calls are cut. Calls that somebody waits for set a shorter limit of their own.
const READ_TIMEOUT: Duration = Duration::from_secs(310);

/// Why there is no way to the cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("failed to use the kubeconfig {path:?}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: kube::config::KubeconfigError,
    },
    /// This is not a pod, or one without a service account's token.
    #[error("not in a pod of a cluster, and no --kubeconfig given")]
    InCluster(#[source] kube::config::InClusterError),
}

/// Makes aws-lc-rs the process's TLS implementation. To be called before anything else uses TLS; later calls do
/// nothing.
pub fn install_crypto_provider() {
    // An error means that there is a provider already, which only an earlier call can have set.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The settings for `kubeconfig`'s current context, or those of the pod when `None`. With timeouts.
pub async fn config(kubeconfig: Option<&Path>) -> Result<Config, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let refuse = |source| ConnectError::Kubeconfig {
                path: path.to_owned(),
                source,
            };
            let read = Kubeconfig::read_from(path).map_err(refuse)?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .map_err(refuse)?
        }
        None => Config::incluster().map_err(ConnectError::InCluster)?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.write_timeout = Some(WRITE_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: c, user: u, namespace: apart}}]
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:6443'}}]
users: [{name: u, user: {token: t}}]
";

    #[tokio::test]
    async fn a_kubeconfig_is_used_with_timeouts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), KUBECONFIG).unwrap();
        let config = config(Some(file.path())).await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://127.0.0.1:6443/");
        assert_eq!(config.default_namespace, "apart");
        assert_eq!(config.read_timeout, Some(READ_TIMEOUT));
        install_crypto_provider();
        assert!(kube::Client::try_from(config).is_ok());
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let error = config(Some(Path::new("no-such-file"))).await.unwrap_err();
        assert_eq!(error.to_string(), "failed to use the kubeconfig \"no-such-file\"");
    }
}
