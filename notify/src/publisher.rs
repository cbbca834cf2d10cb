//! Publishes the delivery states of messages on the broker.

use orders_contracts::{
    events::{NotificationChanged, NotificationState},
    topology::NOTIFICATION_CHANGED,
};
use orders_service::broker::Broker;
use uuid::Uuid;

use crate::message::{Message, State};

/// Publishes the state of a message. If this event is lost, the operator requests it again.
pub async fn publish_state(broker: &Broker, message: &Message, state: State, error: Option<String>) {
    let state = match state {
        State::Sent => NotificationState::Sent,
        State::Delivering => NotificationState::Delivering,
        State::DeadLettered => NotificationState::DeadLettered,
    };
    let resends = i32::try_from(message.resends).unwrap_or(i32::MAX);
    publish_change(broker, NotificationChanged { key: message.key.clone(), state, error, resends }).await;
}

/// Publishes a change of a message's state. If this event is lost, the operator requests it again.
pub async fn publish_change(broker: &Broker, change: NotificationChanged) {
    let key = change.key.clone();
    if let Err(error) = broker.publish(NOTIFICATION_CHANGED, Uuid::new_v4().to_string(), change).await {
        tracing::warn!(key, %error, "the state of the message was not published");
    }
}
