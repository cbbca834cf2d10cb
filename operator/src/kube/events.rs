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
    pub async fn publish(&self, events: &[OrderEvent], object: &ObjectReference) {
        let namespace = object.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        for event in events {
            let resource = self.to_resource(event, object, Timestamp::now());
            let params = PostParams::default();
            match tokio::time::timeout(TIMEOUT, api.create(&params, &resource)).await {
                Ok(Ok(_)) => {}
                Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => {}
                Ok(Err(error)) => tracing::warn!(order = object.name, reason = %event.reason, %error, "event not stored"),
                Err(_) => tracing::warn!(order = object.name, reason = %event.reason, "event not stored in time"),
            }
        }
    }

    fn to_resource(&self, event: &OrderEvent, object: &ObjectReference, now: Timestamp) -> Event {
        // A name has at most 253 characters. The UID alone would make it unique.
        let name = object.name.as_deref().filter(|name| name.len() <= 200).unwrap_or("order");
        let uid = object.uid.as_deref().unwrap_or_default().split('-').next().unwrap_or_default();
        let round = if event.round > 1 { format!(".{}", event.round) } else { String::new() };
        let mut note = event.note.clone();
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{uid}.{}{round}", event.reason.as_str().to_lowercase())),
                namespace: object.namespace.clone(),
                ..ObjectMeta::default()
            },
            type_: Some(event.type_.to_owned()),
            reason: Some(event.reason.as_str().to_owned()),
            action: Some(event.action.to_owned()),
            note: Some(note),
            event_time: Some(MicroTime(now)),
            regarding: Some(object.clone()),
            reporting_controller: Some("arch.homework/orders-operator".to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}
