//! The claim of one namespace: a Lease whose holder is a ledger. It has no duration, so it never expires.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, ObjectMeta, PostParams},
};
use orders_crds::{Customer, LEDGER_LEASE, Order};

use crate::kube::{CALL_TIMEOUT, FIELD_MANAGER, KubeError, holder};

/// The annotation with the Lease of the operators that use this ledger, as `NAMESPACE/NAME`. If nobody holds it, nobody
/// charges in the ledger.
const OPERATOR_LEASE: &str = "arch.homework/operator-lease";

/// An operator that has not renewed its Lease for this long no longer runs, also if its clock is a little off.
const EXPIRED: SignedDuration = SignedDuration::from_mins(2);

/// Whose the orders and customers of a namespace are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// This operator's ledger has them.
    Own,
    /// The ledger with this ID has them.
    Other(String),
    /// The API server refuses to tell or to record it, for this reason: permissions, a quota or a policy.
    Refused(String),
    /// The namespace is being deleted, and nothing can be recorded in it any more.
    Ending,
    /// There is no such namespace any more.
    Gone,
}

/// Whose the namespace is, as far as can be known without the ID of this operator's ledger: a claim of another
/// operator counts as that of another ledger, and a namespace without a claim as this one's.
///
/// # Errors
/// [`KubeError`].
pub(super) async fn guess(client: &Client, namespace: &str, operator_lease: Option<&str>) -> Result<Claim, KubeError> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let Some(claim) = call(leases.get_opt(LEDGER_LEASE)).await? else { return Ok(Claim::Own) };
    let is_own = claim.annotations().get(OPERATOR_LEASE).map(String::as_str) == operator_lease;
    Ok(if is_own { Claim::Own } else { Claim::Other(holder(&claim).to_owned()) })
}

/// The ledger that claims namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claimant {
    /// The ID of the ledger.
    pub ledger: String,
    /// The Lease that this operator needs to be active, as `NAMESPACE/NAME`; `None` without leader election.
    pub operator_lease: Option<String>,
}

impl Claimant {
    /// Claims the namespace, unless another ledger has. A ledger loses its claim if there is nothing
    /// left in the namespace and none of its operators is active, or if this operator's billing service
    /// has a new one.
    ///
    /// # Errors
    /// [`KubeError`], after which it is not known whose the namespace is.
    pub async fn claim(&self, client: &Client, namespace: &str) -> Result<Claim, KubeError> {
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        loop {
            let current = match call(leases.get_opt(LEDGER_LEASE)).await {
                Err(KubeError::Api(kube::Error::Api(status))) if status.is_forbidden() => {
                    return Ok(Claim::Refused(status.message));
                }
                current => current?,
            };
            let write = match current {
                None => call(leases.create(&params(), &self.lease(None))).await,
                Some(current) if holder(&current) == self.ledger && self.is_operator_of(&current) => return Ok(Claim::Own),
                Some(current) if holder(&current) == self.ledger || self.may_replace(client, namespace, &current).await? => {
                    call(leases.replace(LEDGER_LEASE, &params(), &self.lease(Some(current)))).await
                }
                Some(current) => return Ok(Claim::Other(holder(&current).to_owned())),
            };
            match write {
                Ok(_) => return Ok(Claim::Own),
                Err(KubeError::Api(kube::Error::Api(status))) => match refusal(&status) {
                    Some(claim) => return Ok(claim),
                    // Another operator was faster.
                    None if status.is_already_exists() || status.is_conflict() || status.is_not_found() => {}
                    None => return Err(KubeError::Api(kube::Error::Api(status))),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether nothing is left that the claim protects, and nobody is active who relies on it.
    async fn may_replace(&self, client: &Client, namespace: &str, claim: &Lease) -> Result<bool, KubeError> {
        if holder(claim).is_empty() {
            return Ok(true);
        }
        let one = ListParams::default().limit(1);
        let orders = call(Api::<Order>::namespaced(client.clone(), namespace).list_metadata(&one)).await?;
        let customers = call(Api::<Customer>::namespaced(client.clone(), namespace).list_metadata(&one)).await?;
        if !orders.items.is_empty() || !customers.items.is_empty() {
            return Ok(false);
        }
        let Some(operator_lease) = claim.annotations().get(OPERATOR_LEASE) else { return Ok(false) };
        if Some(operator_lease) == self.operator_lease.as_ref() {
            // This operator holds that Lease itself: its billing service has a new ledger.
            return Ok(true);
        }
        let Some((lease_namespace, name)) = operator_lease.split_once('/') else { return Ok(false) };
        match call(Api::<Lease>::namespaced(client.clone(), lease_namespace).get_opt(name)).await {
            Ok(lease) => Ok(lease.is_none_or(|lease| is_free(&lease, Timestamp::now()))),
            // An operator of one namespace may not read the Leases of others.
            Err(KubeError::Api(kube::Error::Api(status))) if status.is_forbidden() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_operator_of(&self, lease: &Lease) -> bool {
        lease.annotations().get(OPERATOR_LEASE) == self.operator_lease.as_ref()
    }

    /// The Lease with this claim. It replaces `current`, if there is one.
    fn lease(&self, current: Option<Lease>) -> Lease {
        let current = current.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(LEDGER_LEASE.to_owned()), ..ObjectMeta::default() },
            spec: None,
        });
        let mut metadata = current.metadata;
        let annotations = metadata.annotations.get_or_insert_default();
        match &self.operator_lease {
            Some(lease) => annotations.insert(OPERATOR_LEASE.to_owned(), lease.clone()),
            None => annotations.remove(OPERATOR_LEASE),
        };
        let acquire_time = Some(MicroTime(Timestamp::now()));
        let spec = LeaseSpec { holder_identity: Some(self.ledger.clone()), acquire_time, ..LeaseSpec::default() };
        Lease { metadata, spec: Some(spec) }
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

async fn call<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, KubeError> {
    Ok(tokio::time::timeout(CALL_TIMEOUT, call).await??)
}

/// Whether no operator holds this Lease.
fn is_free(lease: &Lease, now: Timestamp) -> bool {
    let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
    holder(lease).is_empty() || renewed.is_none_or(|renewed| now.duration_since(renewed.0) > EXPIRED)
}

/// The claim that follows from a refusal by the API server. `None` if another attempt may succeed.
fn refusal(status: &kube::core::Status) -> Option<Claim> {
    let details = status.details.as_ref();
    let is_ending = details.is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"));
    match status.code {
        404 if details.is_some_and(|details| details.kind == "namespaces") => Some(Claim::Gone),
        403 if is_ending => Some(Claim::Ending),
        404 | 409 | 429 => None,
        400..500 => Some(Claim::Refused(status.message.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_free_if_it_was_released_or_not_renewed_for_two_minutes() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
        let lease = |holder: &str, seconds: Option<i64>| Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                renew_time: seconds.map(|seconds| MicroTime(now - SignedDuration::from_secs(seconds))),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        for (holder, seconds, expected) in [
            ("operator-1", Some(0), false),
            ("operator-1", Some(119), false),
            ("operator-1", Some(-30), false),
            ("operator-1", Some(121), true),
            ("operator-1", None, true),
            ("", Some(0), true),
        ] {
            assert_eq!(is_free(&lease(holder, seconds), now), expected, "{holder} {seconds:?}");
        }
        assert!(is_free(&Lease::default(), now));
    }

    #[test]
    fn a_refusal_is_for_good_or_of_a_namespace_that_ends() {
        let status = |code: u16, kind: &str, cause: &str| -> kube::core::Status {
            let details = serde_json::json!({"kind": kind, "causes": [{"reason": cause, "message": "", "field": ""}]});
            serde_json::from_value(serde_json::json!({"code": code, "message": "no", "reason": "", "details": details})).unwrap()
        };
        assert_eq!(refusal(&status(403, "leases", "NamespaceTerminating")), Some(Claim::Ending));
        assert_eq!(refusal(&status(404, "namespaces", "")), Some(Claim::Gone));
        for code in [403, 422, 400] {
            assert_eq!(refusal(&status(code, "leases", "")), Some(Claim::Refused("no".to_owned())), "{code}");
        }
        for code in [404, 409, 429, 500, 503] {
            assert_eq!(refusal(&status(code, "leases", "")), None, "{code}");
        }
    }
}
