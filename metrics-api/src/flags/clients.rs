//! Flags of k8s.io/apiserver's that say who is trusted and who is asked about clients.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use extension_apiserver::{Authorities, FrontProxyFiles};

use super::parse_go_bool;

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct ClientFlags {
    /// Path to a kubeconfig with the kube-apiserver that says whom to trust and whose a token is. The default is that of
    /// --kubeconfig.
    #[arg(long, value_name = "FILE", help_heading = "Clients")]
    pub authentication_kubeconfig: Option<PathBuf>,

    /// Path to a kubeconfig with the kube-apiserver that says what clients may do. The default is that of --kubeconfig.
    #[arg(long, value_name = "FILE", help_heading = "Clients")]
    pub authorization_kubeconfig: Option<PathBuf>,

    /// File with the authorities of client certificates, instead of those that kube-apiserver publishes.
    #[arg(long, value_name = "FILE", help_heading = "Clients")]
    pub client_ca_file: Option<PathBuf>,

    /// File with the authorities of the front proxy's certificate. With it the other flags of the front proxy count, and
    /// nothing that kube-apiserver publishes about it does.
    #[arg(long, value_name = "FILE", help_heading = "Clients")]
    pub requestheader_client_ca_file: Option<PathBuf>,

    /// Names that the front proxy's certificate may have; none: any.
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Clients")]
    pub requestheader_allowed_names: Vec<String>,

    /// Headers in which the front proxy names the user.
    #[arg(
        long,
        value_name = "HEADER",
        value_delimiter = ',',
        default_value = "x-remote-user",
        help_heading = "Clients"
    )]
    pub requestheader_username_headers: Vec<String>,

    /// Headers in which the front proxy gives the user's UID.
    #[arg(long, value_name = "HEADER", value_delimiter = ',', help_heading = "Clients")]
    pub requestheader_uid_headers: Vec<String>,

    /// Headers in which the front proxy names the user's groups.
    #[arg(
        long,
        value_name = "HEADER",
        value_delimiter = ',',
        default_value = "x-remote-group",
        help_heading = "Clients"
    )]
    pub requestheader_group_headers: Vec<String>,

    /// What the headers begin with in which the front proxy says more about the user.
    #[arg(
        long,
        value_name = "PREFIX",
        value_delimiter = ',',
        default_value = "x-remote-extra-",
        help_heading = "Clients"
    )]
    pub requestheader_extra_headers_prefix: Vec<String>,

    /// Trust only what flags name, and read nothing that kube-apiserver publishes.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, value_parser = parse_go_bool, action = ArgAction::Set, help_heading = "Clients")]
    pub authentication_skip_lookup: bool,
}

impl ClientFlags {
    /// Whom to trust, where that is not what kube-apiserver publishes.
    #[must_use]
    pub fn authorities(&self) -> Authorities {
        let front_proxy = self
            .requestheader_client_ca_file
            .as_ref()
            .map(|ca| FrontProxyFiles {
                allowed_names: self.requestheader_allowed_names.clone(),
                username_headers: self.requestheader_username_headers.clone(),
                uid_headers: self.requestheader_uid_headers.clone(),
                group_headers: self.requestheader_group_headers.clone(),
                extra_headers_prefixes: self.requestheader_extra_headers_prefix.clone(),
                ..FrontProxyFiles::new(ca)
            });
        Authorities {
            client_ca: self.client_ca_file.clone(),
            front_proxy,
            skip_lookup: self.authentication_skip_lookup,
        }
    }
}
