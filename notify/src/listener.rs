//! Notify over the broker: outcomes come in, customers are told, how that stands goes out.

use orders_broker::{
    Broker, Received, Undealt,
    messages::{self, Decided, NotificationChanged, NotificationState},
    topology::{self, NOTIFICATION_CHANGED},
};
use orders_crds::{Outcome, Reason, texts};
use orders_service::shutdown::Shutdown;
use uuid::Uuid;

use crate::{
    delivery::Delivery,
    error::NotifyError,
    log::{Message, NewMessage},
};

/// Has customers told until shutdown.
pub async fn listen(broker: Broker, delivery: Delivery, shutdown: Shutdown) {
    let deal = |received: Received| {
        let (broker, delivery) = (broker.clone(), delivery.clone());
        async move { tell(&broker, &delivery, received.data()?).await }
    };
    broker.consume(&topology::NOTIFY, deal, shutdown.requested()).await;
}

async fn tell(broker: &Broker, delivery: &Delivery, decided: Decided) -> Result<(), Undealt> {
    let outcome = match decided.outcome {
        messages::Outcome::Charged => Outcome::Paid,
        messages::Outcome::InsufficientFunds => Outcome::Refused(Some(Reason::InsufficientFunds)),
        messages::Outcome::AccountNotFound => Outcome::Refused(Some(Reason::AccountNotFound)),
        messages::Outcome::Closed => Outcome::Refused(Some(Reason::Cancelled)),
    };
    let text = texts::for_outcome(outcome, &decided.login, decided.amount, decided.balance)
        .ok_or_else(|| Undealt::Never("nothing to tell of this outcome".to_owned()))?;
    if let Err(error) = decided.email.as_ref().parse::<lettre::Address>() {
        announce(broker, &decided.key, NotificationState::Undeliverable, Some(format!("email: {error}"))).await;
        return Ok(());
    }
    let new = NewMessage { key: &decided.key, login: decided.login.as_ref(), email: decided.email.as_ref(), text: &text };
    #[cfg(feature = "planted-bugs")]
    if orders_service::planted::is("message-not-deduplicated") && delivery.knows(&decided.key).await {
        let key = orders_service::planted::another(&decided.key);
        let _ = delivery.accept(NewMessage { key: &key, ..new }).await;
    }
    // The attempt announces by itself how it ends; only one who asks again is told how it stands.
    let (message, is_new) = match delivery.accept(new).await {
        Ok(accepted) => accepted,
        Err(NotifyError::Database(error)) => return Err(Undealt::Later(format!("database: {error}"))),
        Err(error) => return Err(Undealt::Never(error.to_string())),
    };
    if !is_new {
        announce_message(broker, &message).await;
    }
    Ok(())
}

/// Says how a message stands. If that is lost, the operator asks.
pub async fn announce_message(broker: &Broker, message: &Message) {
    let state = if message.sent_at.is_some() { NotificationState::Sent } else { NotificationState::Delivering };
    announce(broker, &message.key, state, message.last_error.clone()).await;
}

async fn announce(broker: &Broker, key: &str, state: NotificationState, error: Option<String>) {
    let changed = NotificationChanged { key: key.to_owned(), state, error };
    if let Err(error) = broker.publish(NOTIFICATION_CHANGED, Uuid::new_v4().to_string(), changed).await {
        tracing::warn!(key, %error, "not announced");
    }
}
