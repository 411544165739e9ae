//! What a client may do: kube-apiserver is asked by `SubjectAccessReview`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use crate::authn::User;
use crate::cache::{Cache, Key, KeyBuilder};
use crate::metrics::Metrics;
use crate::options::Authorization;
use crate::request::RequestInfo;
use crate::review::{Log, ReviewError, Reviews};
use crate::status::{Quoted, Status};

/// Answers kept at most.
const CAPACITY: usize = 8192;

/// Whether something is allowed; if not, why, if that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Allowed,
    Denied(Arc<str>),
}

/// Asks whether a user may do something.
pub(crate) struct Authorizer {
    always_allow_paths: Vec<String>,
    cache: Cache<Answer>,
    asking: Arc<Asking>,
}

type Answer = Result<Decision, ReviewError>;

struct Asking {
    api: Api<SubjectAccessReview>,
    allow_ttl: Duration,
    deny_ttl: Duration,
    reviews: Arc<Reviews>,
    metrics: Arc<Metrics>,
    log: Log,
}

impl Authorizer {
    /// Asks through `client`.
    pub(crate) fn new(
        client: kube::Client,
        options: Authorization,
        reviews: Arc<Reviews>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            always_allow_paths: options.always_allow_paths,
            cache: Cache::new(CAPACITY),
            asking: Arc::new(Asking {
                api: Api::all(client),
                allow_ttl: options.allow_ttl,
                deny_ttl: options.deny_ttl,
                reviews,
                metrics,
                log: Log::new("SubjectAccessReview"),
            }),
        }
    }

    /// Passes if the user may, or else answers with a refusal.
    pub(crate) async fn authorize(&self, user: &User, info: &RequestInfo) -> Result<(), Status> {
        if user.is_master() || is_always_allowed(&self.always_allow_paths, info) {
            return Ok(());
        }
        let (asking, spec) = (Arc::clone(&self.asking), spec(user, info));
        let ask = || async move { asking.ask(spec).await };
        match self.cache.get(key(user, info), ask).await {
            Ok(Decision::Allowed) => Ok(()),
            Ok(Decision::Denied(reason)) => {
                self.asking.metrics.denied();
                Err(forbidden(user, info, &reason))
            }
            Err(ReviewError::Busy) => Err(Status::too_many_requests(1)),
            Err(error) => Err(Status::internal(&format_args!(
                "SubjectAccessReview failed: {error}"
            ))),
        }
    }
}

impl Asking {
    async fn ask(&self, spec: SubjectAccessReviewSpec) -> (Answer, Duration) {
        let review = SubjectAccessReview {
            spec,
            ..SubjectAccessReview::default()
        };
        let params = PostParams::default();
        let answer = self.reviews.ask(|| self.api.create(&params, &review)).await;
        let decision = answer
            .and_then(|answer| answer.status.ok_or(ReviewError::Empty))
            .map(|status| {
                if status.allowed {
                    Decision::Allowed
                } else {
                    Decision::Denied(status.reason.unwrap_or_default().into())
                }
            });
        self.log.outcome(&decision);
        self.metrics.access_review(decision.is_ok());
        let keep = match &decision {
            Ok(Decision::Allowed) => self.allow_ttl,
            Ok(Decision::Denied(_)) => self.deny_ttl,
            Err(_) => Duration::ZERO,
        };
        (decision, keep)
    }
}

/// Whether the path is open to everybody.
fn is_always_allowed(paths: &[String], info: &RequestInfo) -> bool {
    let bare = |path| str::strip_prefix(path, "/").unwrap_or(path);
    let path = bare(info.path.as_str());
    info.resource.is_none()
        && paths.iter().any(|allowed| match bare(allowed).strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == bare(allowed),
        })
}

fn key(user: &User, info: &RequestInfo) -> Key {
    let mut key = KeyBuilder::default();
    key.field(&user.name).field(&user.uid).list(&user.groups);
    key.field(user.extra.len().to_be_bytes());
    for (name, values) in &user.extra {
        key.field(name).list(values);
    }
    key.field(&info.verb);
    match &info.resource {
        Some(about) => key.list(&[
            &about.group,
            &about.version,
            &about.resource,
            &about.subresource,
            &about.namespace,
            &about.name,
        ]),
        None => key.list(&[&info.path]),
    };
    key.build()
}

fn spec(user: &User, info: &RequestInfo) -> SubjectAccessReviewSpec {
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let mut spec = SubjectAccessReviewSpec {
        user: Some(user.name.clone()),
        uid: some(&user.uid),
        groups: Some(user.groups.clone()).filter(|groups| !groups.is_empty()),
        extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
        ..SubjectAccessReviewSpec::default()
    };
    match &info.resource {
        Some(about) => {
            spec.resource_attributes = Some(ResourceAttributes {
                group: some(&about.group),
                version: some(&about.version),
                resource: some(&about.resource),
                subresource: some(&about.subresource),
                namespace: some(&about.namespace),
                name: some(&about.name),
                verb: some(&info.verb),
                ..ResourceAttributes::default()
            });
        }
        None => {
            spec.non_resource_attributes = Some(NonResourceAttributes {
                path: some(&info.path),
                verb: some(&info.verb),
            });
        }
    }
    spec
}

/// The refusal, in the words of `responsewriters.Forbidden`.
fn forbidden(user: &User, info: &RequestInfo, reason: &str) -> Status {
    let name = Quoted(&user.name);
    let verb = &info.verb;
    let Some(about) = &info.resource else {
        let cause = format!("User {name} cannot {verb} path {}", Quoted(&info.path));
        return Status::forbidden("", "", "", &explained(&cause, reason));
    };
    let resource = match about.subresource.as_str() {
        "" => about.resource.clone(),
        subresource => format!("{}/{subresource}", about.resource),
    };
    let place = match about.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {}", Quoted(namespace)),
    };
    let (resource, group) = (Quoted(&resource), Quoted(&about.group));
    let cause = format!("User {name} cannot {verb} resource {resource} in API group {group} {place}");
    Status::forbidden(
        &about.group,
        &about.resource,
        &about.name,
        &explained(&cause, reason),
    )
}

/// Markup is escaped, as kube-apiserver does, for those who look with a browser.
fn explained(cause: &str, reason: &str) -> String {
    let cause = cause
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    match reason {
        "" => cause,
        reason => format!("{cause}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;
    use crate::request::request_info;

    fn info(path: &'static str) -> RequestInfo {
        request_info(&Method::GET, &Uri::from_static(path))
    }

    fn user(name: &str) -> User {
        User {
            name: name.to_owned(),
            groups: vec!["system:authenticated".to_owned()],
            extra: [("scopes".to_owned(), vec!["a".to_owned()])].into(),
            ..User::default()
        }
    }

    #[test]
    fn paths_are_open_exactly_or_by_their_beginning() {
        let paths = ["/healthz", "/debug/*", "version"].map(str::to_owned);
        for (path, open) in [
            ("/healthz", true),
            ("/healthz?verbose", true),
            ("/healthz/ping", false),
            ("/healthzz", false),
            ("/debug/", true),
            ("/debug/a/b", true),
            ("/debug", false),
            ("/version", true),
            ("/", false),
        ] {
            assert_eq!(is_always_allowed(&paths, &info(path)), open, "{path}");
        }
        let all = ["*".to_owned()];
        assert!(is_always_allowed(&all, &info("/metrics")));
        let pods = info("/apis/metrics.k8s.io/v1/pods");
        assert!(!is_always_allowed(&all, &pods), "resources are never open");
    }

    #[test]
    fn what_is_asked() {
        let specs = [
            "/apis/metrics.k8s.io/v1/namespaces/a/pods?labelSelector=x",
            "/apis/metrics.k8s.io/v1beta1/nodes/n",
            "/metrics?x",
        ]
        .map(|path| spec(&user("jane"), &info(path)));
        insta::assert_json_snapshot!(specs);
    }

    #[test]
    fn refusals_say_what_kube_apiserver_would_say() {
        let refusals: Vec<_> = [
            ("/apis/metrics.k8s.io/v1/pods", ""),
            ("/apis/metrics.k8s.io/v1/namespaces/a/pods/p", "RBAC: no \"role\""),
            ("/apis/metrics.k8s.io/v1/nodes/n", ""),
            ("/debug/%3Cx%3E", ""),
        ]
        .map(|(path, reason)| forbidden(&user("system:anonymous"), &info(path), reason).message)
        .into();
        insta::assert_json_snapshot!(refusals);
    }

    #[test]
    fn each_part_of_user_and_request_makes_another_key() {
        let paths = [
            "/apis/metrics.k8s.io/v1/pods",
            "/apis/metrics.k8s.io/v1beta1/pods",
            "/apis/metrics.k8s.io/v1/nodes",
            "/apis/metrics.k8s.io/v1/namespaces/a/pods",
            "/apis/metrics.k8s.io/v1/namespaces/a/pods/b",
            "/apis/metrics.k8s.io/v1/pods?watch=true",
            "/metrics",
        ];
        let mut seen = std::collections::BTreeSet::new();
        for path in paths {
            assert!(seen.insert(key(&user("jane"), &info(path))), "{path}");
            assert!(seen.insert(key(&user("joe"), &info(path))), "{path}");
        }
        let mut other = user("jane");
        other.groups.push("g".to_owned());
        assert!(seen.insert(key(&other, &info("/metrics"))));
        let mut other = user("jane");
        other.extra.clear();
        assert!(seen.insert(key(&other, &info("/metrics"))));
        assert!(!seen.insert(key(&user("jane"), &info("/metrics?b=1"))));
    }
}
