//! Publishes the Kubernetes Events of orders and customers, for `kubectl describe`.
//!
//! kube's `Recorder` keeps each event of the last six minutes in memory to merge repeats, and
//! iterates over all of them at each publication. Here an event happens once for each order, round
//! and reason, and is named after these three. After a crash, the API server refuses a repeated
//! event because it already exists.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use orders_crds::Reason;

/// How long the API server may take to store an event.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest note that the API server accepts, in bytes.
const MAX_NOTE: usize = 1024;

/// Something that happened to an order or a customer and is published as an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderEvent {
    /// `Normal`, or `Warning` for events that the customer or the administrator does not want.
    pub type_: &'static str,
    /// Why it happened.
    pub reason: Reason,
    /// The operator's action.
    pub action: &'static str,
    /// A description, with amounts.
    pub note: String,
    /// A number that increases when the order repeats its steps: for another attempt to charge,
    /// another resend or a refund.
    pub round: i32,
}

impl OrderEvent {
    /// A `Normal` event.
    pub fn normal(reason: Reason, action: &'static str, note: String) -> Self {
        OrderEvent { type_: "Normal", reason, action, note, round: 1 }
    }

    /// A `Warning` event.
    pub fn warning(reason: Reason, action: &'static str, note: String) -> Self {
        OrderEvent { type_: "Warning", reason, action, note, round: 1 }
    }
}

/// Publishes Events.
#[derive(Clone)]
pub struct Publisher {
    client: Client,
    instance: String,
}

impl Publisher {
    /// Creates a publisher that reports as this replica.
    pub fn new(client: Client, instance: String) -> Self {
        Publisher { client, instance }
    }

    /// Publishes these events, one after the other. A failure is only logged: the status is the
    /// record, and no code reads Events.
    pub async fn publish(&self, happened: &[OrderEvent], order: &ObjectReference) {
        let namespace = order.namespace.as_deref().unwrap_or("default");
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        for one in happened {
            let event = self.event(one, order, Timestamp::now());
            let params = PostParams::default();
            match tokio::time::timeout(TIMEOUT, events.create(&params, &event)).await {
                Ok(Ok(_)) => {}
                Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => {}
                Ok(Err(error)) => tracing::warn!(order = order.name, reason = %one.reason, %error, "event not stored"),
                Err(_) => tracing::warn!(order = order.name, reason = %one.reason, "event not stored in time"),
            }
        }
    }

    fn event(&self, happened: &OrderEvent, order: &ObjectReference, now: Timestamp) -> Event {
        // A name has at most 253 characters. The UID alone would make it unique.
        let name = order.name.as_deref().filter(|name| name.len() <= 200).unwrap_or("order");
        let uid = order.uid.as_deref().unwrap_or_default().split('-').next().unwrap_or_default();
        let round = if happened.round > 1 { format!(".{}", happened.round) } else { String::new() };
        let mut note = happened.note.clone();
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{uid}.{}{round}", happened.reason.as_str().to_lowercase())),
                namespace: order.namespace.clone(),
                ..ObjectMeta::default()
            },
            type_: Some(happened.type_.to_owned()),
            reason: Some(happened.reason.as_str().to_owned()),
            action: Some(happened.action.to_owned()),
            note: Some(note),
            event_time: Some(MicroTime(now)),
            regarding: Some(order.clone()),
            reporting_controller: Some("arch.homework/orders-operator".to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}
