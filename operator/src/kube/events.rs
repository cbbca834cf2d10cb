//! Publishes the Kubernetes Events of orders and customers, for `kubectl describe`.
//!
//! kube's `Recorder` keeps each event of the last six minutes in memory to merge repeats, and
//! iterates over all of them at each publication. Here a pass publishes one Event for all that
//! happened in it. It happens once for each order, round and reason, and is named after these three.
//! After a crash, the API server refuses a repeated Event because it already exists.

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

/// The action of an event about the customer's message.
pub const NOTIFY: &str = "Notify";

const NORMAL: &str = "Normal";
const WARNING: &str = "Warning";

/// Something that happened to an order or a customer and is published as an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderEvent {
    /// `Normal`, or `Warning` for events that the customer or the administrator does not want.
    pub type_: &'static str,
    /// Why it happened.
    pub reason: Reason,
    /// The operator's action.
    pub action: &'static str,
    /// A description, with amounts. The history shows it to customers.
    pub note: String,
    /// The error of another service, for the administrator; empty if there is none. Only the Event and the
    /// log have it.
    pub error: String,
    /// A number that increases when the order repeats its steps: for another attempt to charge,
    /// another resend or a refund.
    pub round: i32,
}

impl OrderEvent {
    /// A `Normal` event.
    pub fn normal(reason: Reason, action: &'static str, note: String) -> Self {
        OrderEvent { type_: NORMAL, reason, action, note, error: String::new(), round: 1 }
    }

    /// A `Warning` event.
    pub fn warning(reason: Reason, action: &'static str, note: String) -> Self {
        OrderEvent { type_: WARNING, reason, action, note, error: String::new(), round: 1 }
    }

    /// The event with the error of another service that caused it.
    #[must_use]
    pub fn because_of(self, error: &str) -> Self {
        OrderEvent { error: error.to_owned(), ..self }
    }

    /// The description and the error.
    pub fn full_note(&self) -> String {
        if self.error.is_empty() { self.note.clone() } else { format!("{} {}", self.note, self.error) }
    }

    /// Merges what happened in one pass, oldest first, so that the pass costs one Event. Its reason is
    /// that of the last change of the outcome, or the last reason if the outcome did not change. Its
    /// note contains all notes.
    pub fn merge(events: &[OrderEvent]) -> Option<OrderEvent> {
        let main = events.iter().rev().find(|event| event.action != NOTIFY).or(events.last())?;
        let notes = events.iter().enumerate().map(|(index, event)| {
            // The note about the outcome comes first, and the address is in the spec.
            if event.reason == Reason::Sent && index > 0 { "E-mail sent.".to_owned() } else { event.full_note() }
        });
        let note = notes.collect::<Vec<_>>().join(" ");
        let type_ = if events.iter().any(|event| event.type_ == WARNING) { WARNING } else { NORMAL };
        Some(OrderEvent { type_, note, error: String::new(), ..main.clone() })
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

    /// Publishes what happened in a pass as one Event. A failure is only logged: the status is the
    /// record, and no code reads Events.
    pub async fn publish(&self, events: &[OrderEvent], object: &ObjectReference) {
        let Some(event) = OrderEvent::merge(events) else { return };
        let namespace = object.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let resource = self.to_resource(&event, object, Timestamp::now());
        let params = PostParams::default();
        match tokio::time::timeout(TIMEOUT, api.create(&params, &resource)).await {
            Ok(Ok(_)) => {}
            Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => {}
            Ok(Err(error)) => tracing::warn!(order = object.name, reason = %event.reason, %error, "event not stored"),
            Err(_) => tracing::warn!(order = object.name, reason = %event.reason, "event not stored in time"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_publishes_one_event_about_its_outcome() {
        let paid = OrderEvent::normal(Reason::Paid, "Charge", "Charged 100.00 to a; the balance is now 800.00.".into());
        let sent = OrderEvent::normal(Reason::Sent, NOTIFY, "The mail server accepted the message to a@b.cd.".into());
        let unavailable = OrderEvent::warning(Reason::NotifyUnavailable, NOTIFY, "The request is retried.".into());
        let unavailable = unavailable.because_of("timeout");
        let refunded = OrderEvent { round: 2, ..OrderEvent::normal(Reason::Refunded, "Refund", "Refunded 100.00.".into()) };
        let merged = |events: &[&OrderEvent]| {
            let events: Vec<OrderEvent> = events.iter().copied().cloned().collect();
            OrderEvent::merge(&events).map(|event| (event.type_, event.reason, event.round, event.note))
        };
        assert_eq!(merged(&[]), None);
        let both = "Charged 100.00 to a; the balance is now 800.00. E-mail sent.".to_owned();
        assert_eq!(merged(&[&paid, &sent]), Some(("Normal", Reason::Paid, 1, both)));
        assert_eq!(merged(&[&sent]), Some(("Normal", Reason::Sent, 1, sent.note.clone())), "a mail that is sent later");
        let later = format!("{} The request is retried. timeout", paid.note);
        assert_eq!(merged(&[&paid, &unavailable]), Some(("Warning", Reason::Paid, 1, later)));
        let cancelled = format!("{} Refunded 100.00. E-mail sent.", paid.note);
        assert_eq!(merged(&[&paid, &refunded, &sent]), Some(("Normal", Reason::Refunded, 2, cancelled)));
    }
}
