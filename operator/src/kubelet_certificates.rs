//! Serving certificates of kubelets with `serverTLSBootstrap: true`: each asks for one, and Kubernetes leaves it to
//! somebody else to say yes.

mod judge;
mod request;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};

use self::judge::{Verdict, judge, node_of};
use crate::cluster;
use crate::plan::AddressPrefixes;

/// Who signs them.
pub(crate) const SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Requests looked at in one go, and in one turn. Those beyond wait for the next one.
const PAGE: u32 = 100;
const MOST: usize = 200;
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
    /// How many cannot be decided yet.
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

/// Decides on each pending request.
pub(crate) async fn decide(client: &Client, prefixes: &AddressPrefixes) -> Result<Outcome, kube::Error> {
    let mut outcome = Outcome::default();
    for request in pending(client).await? {
        let node = match node_of(&request) {
            Some(name) => Api::<Node>::all(client.clone()).get_opt(name).await?,
            None => None,
        };
        let (name, user) = (
            request.name_any(),
            request.spec.username.clone().unwrap_or_default(),
        );
        match judge(&request, node.as_ref(), prefixes) {
            Verdict::Wait(why) => {
                tracing::debug!(request = name, user, why, "a kubelet's certificate has to wait");
                outcome.waiting += 1;
            }
            Verdict::Approve => {
                let why = "names and addresses are those of the Node";
                if write(client, request, APPROVED, why).await? {
                    tracing::info!(
                        request = name,
                        user,
                        "a kubelet's serving certificate is approved"
                    );
                    outcome.approved += 1;
                }
            }
            Verdict::Deny(why) => {
                if write(client, request, DENIED, &why).await? {
                    let why = format!("CertificateSigningRequest {name} of {user}: {why}");
                    outcome.denied.push(Denied { name, why });
                }
            }
        }
    }
    Ok(outcome)
}

async fn pending(client: &Client) -> Result<Vec<CertificateSigningRequest>, kube::Error> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let mut found = Vec::new();
    let mut page = ListParams::default()
        .fields(&format!("spec.signerName={SIGNER}"))
        .limit(PAGE);
    loop {
        let list = api.list(&page).await?;
        found.extend(list.items.into_iter().filter(is_pending));
        found.truncate(MOST);
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() && found.len() < MOST => page.continue_token = Some(token),
            _ => return Ok(found),
        }
    }
}

/// Whether nobody has decided.
fn is_pending(request: &CertificateSigningRequest) -> bool {
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
    let now = jiff::Timestamp::now();
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
