//! Kubernetes Events of an order, for `kubectl describe`.
//!
//! kube's `Recorder` keeps each event of the last six minutes in memory, to merge
//! repeats, and walks through them at each publication. Here an event happens once for
//! an order, round and reason, and is named after them: the API server refuses a repeat
//! after a crash as already existing.

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

/// The longest note that the API server takes, in bytes.
const MAX_NOTE: usize = 1024;

/// Something that happened to an order, and is worth an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderEvent {
    /// `Normal`, or `Warning` for what the customer or operator would not want.
    pub type_: &'static str,
    /// Why.
    pub reason: Reason,
    /// What the operator was doing.
    pub action: &'static str,
    /// In words, with amounts.
    pub note: String,
    /// Counts on when the order goes through the same again: another attempt, another message.
    pub round: i32,
}

impl OrderEvent {
    /// Something that went as it should.
    pub fn normal(reason: Reason, action: &'static str, note: String) -> Self {
        OrderEvent { type_: "Normal", reason, action, note, round: 1 }
    }

    /// Something that did not.
    pub fn warning(reason: Reason, action: &'static str, note: String) -> Self {
        OrderEvent { type_: "Warning", reason, action, note, round: 1 }
    }
}

/// Publishes events.
#[derive(Clone)]
pub struct Publisher {
    client: Client,
    instance: String,
}

impl Publisher {
    /// A publisher in the name of this replica.
    pub fn new(client: Client, instance: String) -> Self {
        Publisher { client, instance }
    }

    /// Publishes these events in their order. A failure is only logged: the status is the
    /// record, and no code reads events.
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
        // Names have 253 characters at most; the UID alone would do.
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
