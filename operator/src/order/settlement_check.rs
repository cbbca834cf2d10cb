//! The leader's periodic check of the authorized charges. A charge that has been authorized for longer
//! than a pass takes, and whose order no longer exists, is settled: nobody else will.
//!
//! The check judges only what it can see as a whole. If the API server, the archive or notify does not
//! respond, or if the order is in a namespace of another operator or ledger, the charge stays as it is.

use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use orders_contracts::billing::Authorization;
use orders_crds::{Order, OrderStatus, Outcome, order::charge_key};

use super::{manifest, settlement::Settlement, status::StatusBuilder};
use crate::{
    claims::Claims,
    kube::{CALL_TIMEOUT, OrderGuard},
    ports::{Payment, Purchase, UnknownResult},
};

/// The maximum number of pages of one check. The next check continues after them.
const MAX_PAGES: usize = 20;

/// The maximum number of charges that are settled at the same time.
const CONCURRENCY: usize = 16;

/// What happens to an authorized charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The order lives, or it is not this operator's. Nothing is to be done.
    Keep,
    /// The archive has the order as paid: capture the charge.
    Capture,
    /// Neither: the charge is captured if the customer was told of it, and voided otherwise.
    SettleByMessage,
}

/// The check, and its parameters.
pub struct SettlementCheck {
    /// Settles the charges.
    pub settlement: Settlement,
    /// The namespace of the operator's orders; `None` for all.
    pub namespace: Option<String>,
    /// How often the authorized charges are checked.
    pub interval: Duration,
    /// How long a charge may be authorized before the check looks for its order: longer than a pass
    /// takes.
    pub min_age: Duration,
}

impl SettlementCheck {
    /// Checks the authorized charges, at the start and after each interval. Never returns.
    pub async fn run(&self, orders: &Store<OrderGuard>, claims: &Claims) {
        let mut cursor = 0;
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if orders.wait_until_ready().await.is_err() {
                continue;
            }
            self.settlement.reset_voids();
            match self.check(cursor, orders, claims).await {
                Ok(next) => cursor = next,
                Err(error) => tracing::warn!(%error, "the authorized charges cannot be listed; retrying"),
            }
        }
    }

    /// Checks the authorizations after `cursor`. Returns the cursor of the next check.
    async fn check(&self, mut cursor: i64, orders: &Store<OrderGuard>, claims: &Claims) -> Result<i64, UnknownResult> {
        let mut kept = 0;
        for _ in 0..MAX_PAGES {
            let page = self.settlement.authorizations.list(cursor, self.min_age).await?;
            let Some(last) = page.last() else {
                cursor = 0;
                break;
            };
            cursor = last.id;
            let checks: Vec<_> = page.iter().map(|authorization| self.settle_overdue(authorization, orders, claims)).collect();
            let mut results = stream::iter(checks).buffer_unordered(CONCURRENCY);
            while let Some(is_settled) = results.next().await {
                kept += usize::from(!is_settled);
            }
        }
        metrics::gauge!("orders_charges_authorized_overdue").set(kept as f64);
        Ok(cursor)
    }

    /// Settles the charge if its order no longer exists. Returns whether it is settled.
    async fn settle_overdue(&self, authorization: &Authorization, orders: &Store<OrderGuard>, claims: &Claims) -> bool {
        let key = &authorization.key;
        let Some((order, attempt)) = manifest::read(authorization) else {
            tracing::warn!(key, reference = authorization.reference, "the metadata of this charge is not that of an order");
            return false;
        };
        let settled = async {
            match self.judge(&order, key, orders, claims).await? {
                Verdict::Keep => Ok(false),
                Verdict::Capture => self.settlement.capture(key).await.map(|()| true),
                Verdict::SettleByMessage => self.settle_by_message(&order, attempt, authorization).await.map(|()| true),
            }
        };
        match settled.await {
            Ok(is_settled) => is_settled,
            Err(error) => {
                tracing::warn!(order = order.name_any(), key, %error, "a charge without an order is not settled; retrying");
                false
            }
        }
    }

    async fn judge(
        &self,
        order: &Order,
        key: &str,
        orders: &Store<OrderGuard>,
        claims: &Claims,
    ) -> Result<Verdict, UnknownResult> {
        if self.namespace.is_some() && self.namespace != order.namespace() {
            return Ok(Verdict::Keep);
        }
        if !claims.is_own(&order.namespace().unwrap_or_default()).await {
            return Ok(Verdict::Keep);
        }
        let uid = order.uid().unwrap_or_default();
        let reference = ObjectRef::<OrderGuard>::new(&order.name_any()).within(&order.namespace().unwrap_or_default());
        let is_live = match orders.get(&reference) {
            Some(live) if live.uid().as_deref() == Some(&*uid) => true,
            _ => self.exists(order).await?,
        };
        let archived = match &self.settlement.archive {
            Some(archive) if !is_live => archive.find(&uid).await?,
            _ => None,
        };
        Ok(verdict(is_live, archived.as_ref(), key))
    }

    /// Whether the order exists now. The API server is asked, because the watch may be behind.
    async fn exists(&self, order: &Order) -> Result<bool, UnknownResult> {
        let orders: Api<OrderGuard> = Api::namespaced(self.settlement.client.clone(), &order.namespace().unwrap_or_default());
        let name = order.name_any();
        let unknown = |error: &dyn std::fmt::Display| UnknownResult(format!("the order cannot be read: {error}"));
        match tokio::time::timeout(CALL_TIMEOUT, orders.get(&name)).await.map_err(|error| unknown(&error))? {
            Ok(current) => Ok(current.uid() == order.uid()),
            // While the API server does not serve Orders at all, its 404 names no object.
            Err(kube::Error::Api(status))
                if status.is_not_found() && status.details.as_ref().is_some_and(|details| details.name == name) =>
            {
                Ok(false)
            }
            Err(error) => Err(unknown(&error)),
        }
    }

    /// Settles a charge of which only billing and notify know.
    async fn settle_by_message(&self, order: &Order, attempt: i32, charge: &Authorization) -> Result<(), UnknownResult> {
        let purchase = Purchase::read(order.key_uid(), attempt, &order.spec).map_err(|error| UnknownResult(error.to_string()))?;
        let status = OrderStatus { attempt: (attempt > 1).then_some(attempt), ..order.status.clone().unwrap_or_default() };
        let mut builder = StatusBuilder::new(status, order.metadata.generation);
        let charged_at = Timestamp::from_microsecond(charge.created_at).unwrap_or_else(|_| Timestamp::now());
        builder.record_charge(&purchase, Ok(Payment::Charged { balance: charge.balance }), charged_at);
        self.settlement.settle_charge(order, &purchase, &mut builder, false).await
    }
}

/// Decides what happens to an authorized charge with this key.
fn verdict(is_live: bool, archived: Option<&Order>, key: &str) -> Verdict {
    match archived {
        _ if is_live => Verdict::Keep,
        // A newer version archived an outcome that this version does not know.
        Some(archived) if archived.outcome() == Outcome::Unknown => Verdict::Keep,
        Some(archived) if is_paid_by(archived, key) => Verdict::Capture,
        Some(_) | None => Verdict::SettleByMessage,
    }
}

/// Whether the archived order has this charge, and is paid by it.
fn is_paid_by(archived: &Order, key: &str) -> bool {
    let status = archived.status.as_ref();
    status.is_some_and(|status| status.outcome() == Outcome::Paid && charge_key(archived.key_uid(), status.attempt()) == key)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use orders_crds::{ConditionType, OrderSpec, Reason, conditions};

    use super::*;

    fn archived(succeeded: Option<bool>, reason: Reason, attempt: Option<i32>) -> Order {
        let mut status = OrderStatus { attempt, ..OrderStatus::default() };
        let kind = ConditionType::Succeeded;
        conditions::set(&mut status.conditions, kind, succeeded, reason, String::new(), None, Timestamp::UNIX_EPOCH);
        let metadata = ObjectMeta { uid: Some("uid".to_owned()), ..ObjectMeta::default() };
        Order { metadata, spec: OrderSpec::default(), status: Some(status) }
    }

    #[test]
    fn a_charge_is_captured_only_if_the_archive_has_its_order_as_paid_by_it() {
        let paid = |attempt| archived(Some(true), Reason::Paid, attempt);
        let refused = archived(Some(false), Reason::InsufficientFunds, None);
        let cancelled = archived(Some(false), Reason::Cancelled, None);
        // A reason that this version does not know.
        let newer = archived(Some(false), Reason::Processing, None);
        for (is_live, archived, key, expected) in [
            (true, None, "uid", Verdict::Keep),
            (true, Some(&paid(None)), "uid", Verdict::Keep),
            (false, None, "uid", Verdict::SettleByMessage),
            (false, Some(&paid(None)), "uid", Verdict::Capture),
            (false, Some(&paid(None)), "uid.2", Verdict::SettleByMessage),
            (false, Some(&paid(Some(2))), "uid.2", Verdict::Capture),
            (false, Some(&refused), "uid.2", Verdict::SettleByMessage),
            (false, Some(&cancelled), "uid", Verdict::SettleByMessage),
            (false, Some(&newer), "uid", Verdict::Keep),
        ] {
            assert_eq!(verdict(is_live, archived, key), expected, "{is_live} {archived:?} {key}");
        }
    }
}
