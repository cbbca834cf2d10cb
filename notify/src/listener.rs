//! Notify's broker client. It receives the outcomes of charges, notifies the customers and
//! publishes the state of their messages.

use orders_contracts::{
    events::{Decided, NotificationChanged, NotificationState},
    texts,
    topology::{self, PAYMENT_DECIDED},
};
use orders_crds::{Outcome, Refusal};
use orders_service::{
    broker::{Broker, HandlerError, Received},
    shutdown::Shutdown,
};

use crate::{
    delivery::Delivery,
    error::NotifyError,
    message::NewMessage,
    publisher::{publish_change, publish_state},
};

/// Notifies customers until shutdown.
pub async fn listen(broker: Broker, delivery: Delivery, shutdown: Shutdown) {
    let handle = |received: Received| {
        let (broker, delivery) = (broker.clone(), delivery.clone());
        async move {
            let decided: Decided = received.data()?;
            if received.subject == PAYMENT_DECIDED && is_published_by_operator(decided.outcome) {
                return Ok(());
            }
            accept(&broker, &delivery, decided).await
        }
    };
    broker.consume(&topology::NOTIFY, handle, shutdown.requested()).await;
}

/// Whether the operator itself publishes this outcome of a charge. Only the operator knows why a charge
/// was closed, and whether an order takes over the outcome of an earlier one of its name.
fn is_published_by_operator(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::Cancelled | Refusal::AlreadyExists))
}

/// Stores the message about an outcome and schedules its delivery.
async fn accept(broker: &Broker, delivery: &Delivery, decided: Decided) -> Result<(), HandlerError> {
    let text = texts::for_outcome(decided.outcome, &decided.login, decided.amount, decided.balance)
        .ok_or_else(|| HandlerError::Reject("this version has no message text for this outcome".to_owned()))?;
    if let Err(error) = decided.email.as_ref().parse::<lettre::Address>() {
        let error = Some(format!("email: {error}"));
        publish_change(
            broker,
            NotificationChanged { key: decided.key, state: NotificationState::Undeliverable, error, resends: 0 },
        )
        .await;
        return Ok(());
    }
    let new = NewMessage {
        key: decided.key.clone(),
        login: decided.login.to_string(),
        email: decided.email.to_string(),
        text,
        resends: decided.resends.into(),
    };
    #[cfg(debug_assertions)]
    if orders_service::seeded_bugs::is_on("message-not-deduplicated") && delivery.is_stored(&decided.key).await {
        let key = orders_service::seeded_bugs::unique_key(&decided.key);
        let _ = delivery.accept(NewMessage { key, ..new.clone() }).await;
    }
    // The delivery attempt publishes its own result. This function publishes the current state of
    // the message only for a repeated outcome.
    let (message, is_new) = match delivery.accept(new).await {
        Ok(accepted) => accepted,
        Err(NotifyError::Database(error)) => return Err(HandlerError::Retry(format!("database: {error}"))),
        Err(error) => return Err(HandlerError::Reject(error.to_string())),
    };
    if !is_new {
        publish_state(broker, &message, message.state(), message.last_error.clone()).await;
    }
    Ok(())
}
