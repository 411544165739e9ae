//! Putting the parts together and running them until the end.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow, bail};
use contract::names::{DEBUG_NODES_PATH, METRICS_GROUP, METRICS_VERSIONS};
use extension_apiserver::{ApiGroup, FrontProxies, Server, ServerBuilder, Status, VersionInfo};
use kube::{Api, Client, Config};
use process::shutdown::CancellationToken;
use prometheus_client::registry::Registry;
use rustls::{crypto::CryptoProvider, pki_types::CertificateDer};
use secrecy::ExposeSecret as _;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use crate::{
    flags::{Certificate, KubeletCredential, Settings},
    health::Checks,
    index::{NodeIndex, PodIndex},
    kubelet::{
        address::{Guard, Host},
        authority::{self, Authority},
        client::{KubeletClient, KubeletOptions, SHARED_ROOM},
        identity::{self, ClientCertificate},
        records::Records,
        tls::TlsMode,
    },
    metrics::{Metrics, Sizes},
    names::Names,
    procfs::Process,
    report,
    resources::{NodeMetrics, PodMetrics},
    scrape::{
        board::Board,
        fleet::{Fleet, Scraper},
        kubelets::Kubelets,
    },
    store::{Store, series::Rules},
    time::MonotonicClock,
    token::{TokenSource, Tokens, bearer},
    watch as cluster,
};

/// Where a pod finds the name of its namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Variable that comes before the file.
const NAMESPACE_VARIABLE: &str = "POD_NAMESPACE";

/// What scraping and answering share.
struct Shared {
    store: Arc<Store>,
    nodes: Arc<NodeIndex>,
    pods: Arc<PodIndex>,
    board: Arc<Board>,
    clock: MonotonicClock,
    resolution: Duration,
}

/// Serves until `shutdown`. `provider` is the process's TLS implementation.
pub async fn run(
    settings: Settings,
    provider: Arc<CryptoProvider>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let config = process::client::config(settings.kubeconfig.as_deref()).await?;
    let client = Client::try_from(config.clone()).context("failed to set up the client of kube-apiserver")?;
    let kubelets = kubelets(&settings, &config, &client, &provider).await?;
    let records = kubelets.records.clone();
    let kubelets = Kubelets {
        client: KubeletClient::new(kubelets, provider),
        addresses: settings.addresses.clone(),
        source: settings.source,
    };

    let shared = Shared::new(settings.resolution);
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::register(&mut registry, settings.resolution));
    registry.register_collector(Box::new(shared.sizes()));
    registry.register_collector(Box::new(Process));
    let (bind, tls_mode, selector) = (settings.bind, settings.tls_mode, settings.node_selector.clone());
    let (who, what) = (
        &settings.authentication_kubeconfig,
        &settings.authorization_kubeconfig,
    );
    let (who, what) = (
        delegate(who.as_deref(), &client).await?,
        delegate(what.as_deref(), &client).await?,
    );
    let server = shared
        .server(settings, client.clone(), registry)
        .authentication_client(who)
        .authorization_client(what)
        .bind(bind)
        .await?;
    tracing::info!(address = %server.local_addr()?, ?tls_mode, "serving {METRICS_GROUP}");

    let gone = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    let fleet = shared.fleet(kubelets, metrics);
    tasks.spawn(cluster::nodes(
        client.clone(),
        selector,
        shared.nodes,
        fleet,
        Arc::clone(&gone),
    ));
    tasks.spawn(cluster::pods(client.clone(), shared.pods, shared.clock));
    if let Some(records) = records {
        tasks.spawn(cluster::prune_records(client, records, gone));
    }
    tokio::select! {
        ended = server.serve(shutdown.cancelled_owned()) => Ok(ended?),
        // They run for ever: one that ends has met a bug, and half a program answers wrongly.
        ended = tasks.join_next() => match ended {
            Some(Err(error)) => Err(anyhow!(error).context("a part of the program ended")),
            _ => bail!("a watch of the cluster ended"),
        },
    }
}

/// The client of whom a judgement about clients is asked: that of the kubeconfig, if there is one of its own.
async fn delegate(kubeconfig: Option<&Path>, client: &Client) -> anyhow::Result<Client> {
    let Some(path) = kubeconfig else {
        return Ok(client.clone());
    };
    let config = process::client::config(Some(path)).await?;
    Client::try_from(config).with_context(|| format!("failed to set up the client of {}", path.display()))
}

impl Shared {
    fn new(resolution: Duration) -> Self {
        let names = Names::default();
        let millis = u64::try_from(resolution.as_millis()).unwrap_or(u64::MAX);
        Self {
            store: Arc::new(Store::new(Rules { resolution: millis }, names.clone())),
            nodes: Arc::new(NodeIndex::new(names.clone())),
            pods: Arc::new(PodIndex::new(names)),
            board: Arc::default(),
            clock: MonotonicClock::start(),
            resolution,
        }
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            store: Arc::clone(&self.store),
            pods: Arc::clone(&self.pods),
            board: Arc::clone(&self.board),
            clock: self.clock,
        }
    }

    fn server(&self, settings: Settings, client: Client, registry: Registry) -> ServerBuilder {
        let (store, clock) = (&self.store, self.clock);
        let group = ApiGroup {
            name: METRICS_GROUP,
            versions: METRICS_VERSIONS.to_vec(),
            resources: vec![
                Arc::new(NodeMetrics::new(
                    Arc::clone(store),
                    Arc::clone(&self.nodes),
                    clock,
                )),
                Arc::new(PodMetrics::new(Arc::clone(store), Arc::clone(&self.pods), clock)),
            ],
        };
        let health = Checks {
            store: Arc::clone(store),
            board: Arc::clone(&self.board),
            nodes: Arc::clone(&self.nodes),
            pods: Arc::clone(&self.pods),
            clock,
            resolution: self.resolution,
        };
        let (board, front_proxies) = (Arc::clone(&self.board), FrontProxies::default());
        let shown = front_proxies.clone();
        let server = Server::builder(client, group, settings.serving)
            .limits(settings.limits)
            .tls(settings.tls)
            .authorities(settings.authorities)
            .authentication(settings.authentication)
            .authorization(settings.authorization)
            .version(version())
            .registry(registry)
            .shares_port(settings.shares_port)
            .front_proxies(front_proxies)
            .endpoint(DEBUG_NODES_PATH, move || {
                let report = report::report(&board, &shown, SystemTime::now());
                serde_json::to_vec(&report).map_err(|error| Status::internal(&error))
            });
        let server = match settings.strict_transport_security {
            Some(value) => server.strict_transport_security(value),
            None => server,
        };
        let server = match settings.cors {
            Some(origins) => server.cors(origins),
            None => server,
        };
        health
            .checks()
            .into_iter()
            .fold(server, ServerBuilder::health_check)
    }

    fn fleet(&self, kubelets: Kubelets, metrics: Arc<Metrics>) -> Fleet<Kubelets> {
        Fleet::new(Scraper {
            kubelets,
            resolution: self.resolution,
            store: Arc::clone(&self.store),
            board: Arc::clone(&self.board),
            metrics,
            clock: self.clock,
        })
    }
}

/// How kubelets are asked.
async fn kubelets(
    settings: &Settings,
    config: &Config,
    client: &Client,
    provider: &Arc<CryptoProvider>,
) -> anyhow::Result<KubeletOptions> {
    let namespace = || namespace(config, settings.kubeconfig.is_some());
    let records = match settings.tls_mode {
        TlsMode::Auto => Some(Arc::new(Records::new(Api::namespaced(
            client.clone(),
            &namespace()?,
        )))),
        TlsMode::Verify | TlsMode::Insecure => None,
    };
    let identity = identity(settings, config, provider).await?;
    let tokens = match &settings.credential {
        KubeletCredential::ServiceAccount(name) => {
            let api = Box::new(Api::namespaced(client.clone(), &namespace()?));
            Some(TokenSource::Request {
                api,
                name: name.clone(),
            })
        }
        KubeletCredential::Own => own_token(config, identity.is_some())?,
        KubeletCredential::None => None,
    };
    Ok(KubeletOptions {
        mode: settings.tls_mode,
        authority: authority(settings, config).await?,
        records,
        tokens: tokens.map(Tokens::start),
        identity,
        guard: Guard {
            loopback: settings.addresses.loopback,
            api_servers: api_servers(config),
        },
        room: SHARED_ROOM,
        timeout: settings.kubelet_timeout,
    })
}

/// The namespace for token requests and trust records.
fn namespace(config: &Config, by_kubeconfig: bool) -> anyhow::Result<String> {
    if let Ok(name) = std::env::var(NAMESPACE_VARIABLE)
        && !name.is_empty()
    {
        return Ok(name);
    }
    if by_kubeconfig {
        return Ok(config.default_namespace.clone());
    }
    let read = std::fs::read_to_string(NAMESPACE_FILE).with_context(|| {
        format!("the own namespace is not known: expected {NAMESPACE_VARIABLE} in the environment, or {NAMESPACE_FILE}")
    })?;
    Ok(read.trim().to_owned())
}

/// Where API servers are reached, as far as this process knows.
fn api_servers(config: &Config) -> Vec<(Host, u16)> {
    let url = &config.cluster_url;
    let port = url
        .port_u16()
        .unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
    let configured = url.host().map(|host| (Host::from(host), port));
    let variable = |name| std::env::var(name).ok();
    let of_the_pod = variable("KUBERNETES_SERVICE_HOST")
        .zip(variable("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok()))
        .map(|(host, port)| (Host::from(host.as_str()), port));
    configured.into_iter().chain(of_the_pod).collect()
}

/// The client certificate for kubelets: the one that is named, or else that of the kubeconfig, as metrics-server
/// shows it.
async fn identity(
    settings: &Settings,
    config: &Config,
    provider: &Arc<CryptoProvider>,
) -> anyhow::Result<Option<watch::Receiver<Arc<ClientCertificate>>>> {
    if let Some(Certificate { certificate, key }) = &settings.client_certificate {
        let watched = identity::watch_files(certificate.clone(), key.clone(), Arc::clone(provider)).await;
        let named = || "invalid value for --kubelet-client-certificate or --kubelet-client-key";
        return Ok(Some(watched.with_context(named)?));
    }
    let auth = &config.auth_info;
    if settings.credential != KubeletCredential::Own || settings.kubeconfig.is_none() {
        return Ok(None);
    }
    let from_kubeconfig = || "the client certificate of the kubeconfig cannot be shown to kubelets";
    if let (Some(certificate), Some(key)) = (&auth.client_certificate, &auth.client_key) {
        let watched = identity::watch_files(certificate.into(), key.into(), Arc::clone(provider)).await;
        return Ok(Some(watched.with_context(from_kubeconfig)?));
    }
    if let (Some(certificate), Some(key)) = (&auth.client_certificate_data, &auth.client_key_data) {
        let read = identity::from_base64(certificate, key.expose_secret(), provider)
            .with_context(from_kubeconfig)?;
        return Ok(Some(watch::channel(Arc::new(read)).1));
    }
    Ok(None)
}

/// The token of the process itself; none is needed where a client certificate is shown.
fn own_token(config: &Config, has_certificate: bool) -> anyhow::Result<Option<TokenSource>> {
    let auth = &config.auth_info;
    if let Some(token) = &auth.token {
        let header =
            bearer(token.expose_secret()).context("the kubeconfig's token is no value of an HTTP header")?;
        return Ok(Some(TokenSource::Fixed(header)));
    }
    if has_certificate && auth.token_file.is_none() {
        return Ok(None);
    }
    auth.token_file.as_ref().map(|path| Some(TokenSource::File(path.into()))).context(
        "there is no token to show to kubelets: expected one in the kubeconfig, --kubelet-service-account, or \
         --kubelet-client-certificate",
    )
}

/// What kubelets' certificates may chain to.
async fn authority(
    settings: &Settings,
    config: &Config,
) -> anyhow::Result<Option<watch::Receiver<Arc<Authority>>>> {
    if settings.tls_mode == TlsMode::Insecure {
        return Ok(None);
    }
    if let Some(path) = &settings.kubelet_authority {
        let watched = authority::watch_file(path.clone()).await;
        return watched
            .map(Some)
            .context("invalid value for --kubelet-certificate-authority");
    }
    if let Some(path) = &config.root_cert_file {
        return Ok(Some(authority::watch_file(path.clone()).await?));
    }
    let certificates = config
        .root_cert
        .iter()
        .flatten()
        .cloned()
        .map(CertificateDer::from)
        .collect();
    let fixed = Authority::from_der(certificates, "the kubeconfig")
        .context("kubelets cannot be verified: give --kubelet-certificate-authority")?;
    // A receiver keeps its last value after the sender is gone.
    Ok(Some(watch::channel(Arc::new(fixed)).1))
}

fn version() -> VersionInfo {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    VersionInfo {
        major: env!("CARGO_PKG_VERSION_MAJOR").to_owned(),
        minor: env!("CARGO_PKG_VERSION_MINOR").to_owned(),
        git_version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        git_commit: option_env!("GIT_COMMIT").unwrap_or_default().to_owned(),
        compiler: "rustc".to_owned(),
        platform: format!("{}/{architecture}", std::env::consts::OS),
        ..VersionInfo::default()
    }
}
