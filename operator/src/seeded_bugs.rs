//! The seeded bugs of the operator: deliberate errors in the use of the billing client. The fault
//! tests must detect each of them.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use orders_crds::{Money, Order, OrderStatus, Refusal, RetryStep};
use orders_service::seeded_bugs;
use serde_json::json;

use crate::{
    order::status::StatusBuilder,
    ports::{Billing, LateReply, Payment, Purchase, UnknownResult},
};

/// A billing client with the bug that `SEEDED_BUG` names.
pub struct SeededBilling {
    billing: Arc<dyn Billing>,
    client: Client,
}

impl SeededBilling {
    /// Wraps this client.
    pub fn new(billing: Arc<dyn Billing>, client: Client) -> Self {
        SeededBilling { billing, client }
    }

    async fn find_order(&self, purchase: &Purchase) -> Option<Order> {
        let orders = Api::<Order>::all(self.client.clone()).list(&ListParams::default()).await.ok()?;
        orders.into_iter().find(|order| order.uid().as_deref() == Some(&*purchase.key))
    }

    /// Writes that the order is paid, before billing charges the account.
    async fn write_status_first(&self, purchase: &Purchase) -> Option<()> {
        let order = self.find_order(purchase).await?;
        let mut builder = StatusBuilder::new(OrderStatus::default(), order.metadata.generation);
        builder.record_charge(purchase, Ok(Payment::Charged { balance: Money::ZERO }), jiff::Timestamp::now());
        let orders: Api<Order> = Api::namespaced(self.client.clone(), &order.namespace()?);
        let patch = Patch::Merge(json!({ "status": builder.status }));
        orders.patch_status(&order.name_any(), &PatchParams::default(), &patch).await.ok().map(drop)
    }

    /// Records by an Event that the charge was requested. Returns `true` if the Event existed before,
    /// and `None` if the order cannot be read.
    async fn is_charge_in_events(&self, purchase: &Purchase) -> Option<bool> {
        use k8s_openapi::api::events::v1::Event;
        let order = self.find_order(purchase).await?;
        let ObjectReference { namespace, name, .. } = order.object_ref(&());
        let event: Event = serde_json::from_value(json!({
            "metadata": {"name": format!("{}.charging", purchase.key), "namespace": namespace},
            "type": "Normal", "reason": "Charging", "action": "Charge", "eventTime": order.metadata.creation_timestamp.map(|_| "2026-01-01T00:00:00.000000Z"),
            "regarding": {"kind": "Order", "namespace": namespace, "name": name},
            "reportingController": "arch.homework/orders-operator", "reportingInstance": "seeded",
        }))
        .ok()?;
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace?);
        let created = events.create(&Default::default(), &event).await;
        Some(matches!(created, Err(kube::Error::Api(status)) if status.is_already_exists()))
    }
}

#[async_trait]
impl Billing for SeededBilling {
    async fn charge(&self, purchase: &Purchase) -> Result<Payment, UnknownResult> {
        // Only for amounts whose charge succeeds. For a refused charge the bug would show even
        // without an injected failure.
        let is_affordable = (Money::from_minor(1000)..Money::from_minor(10_000)).contains(&purchase.amount);
        if seeded_bugs::is_on("status-before-charge") && is_affordable {
            self.write_status_first(purchase).await;
        }
        if seeded_bugs::is_on("event-as-memory") && self.is_charge_in_events(purchase).await == Some(true) {
            return Ok(Payment::Charged { balance: Money::ZERO });
        }
        match self.billing.charge(purchase).await {
            Err(_) if seeded_bugs::is_on("timeout-as-refusal") => {
                Ok(Payment::Refused { refusal: Refusal::InsufficientFunds, balance: Some(Money::ZERO) })
            }
            Err(_) if seeded_bugs::is_on("new-key-per-retry") => {
                let key = seeded_bugs::unique_key(&purchase.key);
                // The ledger would refuse a second authorization of the order.
                let repeat = Purchase { key, authorization: None, ..purchase.clone() };
                self.billing.charge(&repeat).await
            }
            reply => reply,
        }
    }

    async fn close(&self, purchase: &Purchase) -> Result<Payment, UnknownResult> {
        self.billing.close(purchase).await
    }

    async fn refund(&self, purchase: &Purchase) -> Result<Money, UnknownResult> {
        self.billing.refund(purchase).await
    }

    fn late_reply(&self, step: RetryStep, purchase: &Purchase) -> Option<LateReply> {
        self.billing.late_reply(step, purchase)
    }
}
