//! Serving certificates of kubelets with `serverTLSBootstrap: true`: each asks for one, and Kubernetes leaves it to
//! somebody else to say yes.

mod judge;
mod request;

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};

pub(crate) use self::judge::{Rules, node_of};
use self::judge::{Verdict, judge, line};
use crate::cluster;

/// Who signs them.
pub(crate) const SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Requests held at a time.
const PAGE: u32 = 100;
/// Decisions in one turn, so that the rest of it gets its turn too. What waits does not count: it may wait for ever, and
/// whoever has many wait must not keep the others from being looked at.
const MOST: u64 = 200;
/// How long after it was made a request that waits is looked at oftener than all else.
const HOPE: SignedDuration = SignedDuration::from_mins(10);
const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const REASON: &str = "MetricsStack";

/// What became of the requests that were pending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// How many were approved.
    pub(crate) approved: u64,
    /// Which were denied.
    pub(crate) denied: Vec<Denied>,
    /// How many are to be looked at again soon: what they ask for may come, or a call failed, or enough were decided on.
    pub(crate) waiting: usize,
}

/// A request that was denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    /// Its name.
    pub(crate) name: String,
    /// Whose it was and what was wrong, in one line.
    pub(crate) why: String,
}

/// Decides on each pending request. One that fails is left for the next turn, and the others are not.
pub(crate) async fn decide(client: &Client, rules: &Rules<'_>) -> Result<Outcome, kube::Error> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let mut turn = Turn {
        client,
        rules,
        nodes: HashMap::new(),
        outcome: Outcome::default(),
    };
    let mut page = ListParams::default()
        .fields(&format!("spec.signerName={SIGNER}"))
        .limit(PAGE);
    loop {
        let list = api.list(&page).await?;
        for request in list.items.into_iter().filter(is_pending) {
            turn.look_at(request).await?;
        }
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() => page.continue_token = Some(token),
            _ => return Ok(turn.outcome),
        }
    }
}

struct Turn<'a> {
    client: &'a Client,
    rules: &'a Rules<'a>,
    /// Those that were read: a node may ask often.
    nodes: HashMap<String, Option<Node>>,
    outcome: Outcome,
}

impl Turn<'_> {
    async fn look_at(&mut self, request: CertificateSigningRequest) -> Result<(), kube::Error> {
        let name = request.name_any();
        if self.outcome.denied.len() as u64 + self.outcome.approved >= MOST {
            self.outcome.waiting += 1;
            return Ok(());
        }
        match self.decide(request).await {
            Ok(()) => Ok(()),
            Err(kube::Error::Api(status)) => {
                let error = status.message;
                tracing::warn!(
                    request = name,
                    error,
                    "failed to decide on a kubelet's certificate"
                );
                self.outcome.waiting += 1;
                Ok(())
            }
            // No answer at all: nor will others get one.
            Err(error) => Err(error),
        }
    }

    async fn decide(&mut self, request: CertificateSigningRequest) -> Result<(), kube::Error> {
        let rules = self.rules;
        let verdict = judge(&request, self.node(&request).await?, rules);
        let made = request.metadata.creation_timestamp.as_ref();
        let is_young = made.is_none_or(|made| Timestamp::now().duration_since(made.0) < HOPE);
        let (name, user) = (
            request.name_any(),
            request.spec.username.clone().unwrap_or_default(),
        );
        match verdict {
            Verdict::Wait(why) => {
                tracing::debug!(request = name, user, why, "a kubelet's certificate has to wait");
                // What has not come until then may never come.
                self.outcome.waiting += usize::from(is_young);
            }
            Verdict::Approve => {
                let why = "names and addresses are those of the Node";
                if write(self.client, request, APPROVED, why).await? {
                    tracing::info!(
                        request = name,
                        user,
                        "a kubelet's serving certificate is approved"
                    );
                    self.outcome.approved += 1;
                }
            }
            Verdict::Deny(why) => {
                if write(self.client, request, DENIED, &why).await? {
                    let why = line(&format!("CertificateSigningRequest {name} of {user}: {why}"));
                    self.outcome.denied.push(Denied { name, why });
                }
            }
        }
        Ok(())
    }

    /// The Node that a request is for, if it exists.
    async fn node(&mut self, request: &CertificateSigningRequest) -> Result<Option<&Node>, kube::Error> {
        let Some(name) = node_of(request) else {
            return Ok(None);
        };
        if !self.nodes.contains_key(name) {
            let mut node = Api::<Node>::all(self.client.clone()).get_opt(name).await?;
            if let Some(node) = &mut node {
                slim(node);
            }
            self.nodes.insert(name.to_owned(), node);
        }
        Ok(self.nodes.get(name).and_then(Option::as_ref))
    }
}

/// Leaves what is judged by: there may be thousands.
fn slim(node: &mut Node) {
    let addresses = node.status.take().and_then(|status| status.addresses);
    *node = Node {
        metadata: ObjectMeta {
            name: node.metadata.name.take(),
            creation_timestamp: node.metadata.creation_timestamp.take(),
            ..ObjectMeta::default()
        },
        status: Some(NodeStatus {
            addresses,
            ..NodeStatus::default()
        }),
        ..Node::default()
    };
}

/// Whether nobody has decided.
pub(crate) fn is_pending(request: &CertificateSigningRequest) -> bool {
    let status = request.status.as_ref();
    let mut conditions = status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let issued = status.is_some_and(|status| status.certificate.is_some());
    !issued && !conditions.any(|condition| condition.type_ == APPROVED || condition.type_ == DENIED)
}

/// Writes a decision, unless somebody else has decided meanwhile.
async fn write(
    client: &Client,
    mut request: CertificateSigningRequest,
    decision: &str,
    why: &str,
) -> Result<bool, kube::Error> {
    let now = Timestamp::now();
    let conditions = &mut request.status.get_or_insert_default().conditions;
    conditions
        .get_or_insert_default()
        .push(CertificateSigningRequestCondition {
            type_: decision.to_owned(),
            status: "True".to_owned(),
            reason: Some(REASON.to_owned()),
            message: Some(why.to_owned()),
            last_update_time: Some(Time(now)),
            last_transition_time: Some(Time(now)),
        });
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let name = request.name_any();
    let parameters = PostParams::default();
    match api
        .replace_subresource("approval", &name, &parameters, &request)
        .await
    {
        Ok(_) => Ok(true),
        // Decided or deleted by somebody else.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) if cluster::is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
