//! Notify over the broker: outcomes come in, customers are told, how that stands goes out.

use orders_broker::{
    Broker, Received, Undealt,
    messages::{self, Decided, NotificationChanged, NotificationState},
    topology::{self, NOTIFICATION_CHANGED, PAYMENT_DECIDED},
};
use orders_crds::texts;
use orders_service::shutdown::Shutdown;
use uuid::Uuid;

use crate::{
    delivery::Delivery,
    error::NotifyError,
    log::{Message, NewMessage, State},
};

/// Has customers told until shutdown.
pub async fn listen(broker: Broker, delivery: Delivery, shutdown: Shutdown) {
    let deal = |received: Received| {
        let (broker, delivery) = (broker.clone(), delivery.clone());
        async move {
            let decided: Decided = received.data()?;
            // Why a charge was closed, only the operator knows: it tells.
            if received.subject == PAYMENT_DECIDED && decided.outcome == messages::Outcome::Closed {
                return Ok(());
            }
            tell(&broker, &delivery, decided).await
        }
    };
    broker.consume(&topology::NOTIFY, deal, shutdown.requested()).await;
}

async fn tell(broker: &Broker, delivery: &Delivery, decided: Decided) -> Result<(), Undealt> {
    let text = texts::for_outcome(decided.outcome(), &decided.login, decided.amount, decided.balance)
        .ok_or_else(|| Undealt::Never("nothing to tell of this outcome".to_owned()))?;
    if let Err(error) = decided.email.as_ref().parse::<lettre::Address>() {
        let why = Some(format!("email: {error}"));
        say(broker, NotificationChanged { key: decided.key, state: NotificationState::Undeliverable, error: why, resends: 0 })
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
    if orders_service::seeded_bugs::is_on("message-not-deduplicated") && delivery.knows(&decided.key).await {
        let key = orders_service::seeded_bugs::another(&decided.key);
        let _ = delivery.accept(NewMessage { key, ..new.clone() }).await;
    }
    // The attempt announces by itself how it ends; only one who asks again is told how it stands.
    let (message, is_new) = match delivery.accept(new).await {
        Ok(accepted) => accepted,
        Err(NotifyError::Database(error)) => return Err(Undealt::Later(format!("database: {error}"))),
        Err(error) => return Err(Undealt::Never(error.to_string())),
    };
    if !is_new {
        announce(broker, &message, message.state(), message.last_error.clone()).await;
    }
    Ok(())
}

/// Says how a message stands now. If that is lost, the operator asks.
pub async fn announce(broker: &Broker, message: &Message, state: State, error: Option<String>) {
    let state = match state {
        State::Sent => NotificationState::Sent,
        State::Delivering => NotificationState::Delivering,
        State::DeadLettered => NotificationState::DeadLettered,
    };
    let resends = i32::try_from(message.resends).unwrap_or(i32::MAX);
    say(broker, NotificationChanged { key: message.key.clone(), state, error, resends }).await;
}

async fn say(broker: &Broker, changed: NotificationChanged) {
    let key = changed.key.clone();
    if let Err(error) = broker.publish(NOTIFICATION_CHANGED, Uuid::new_v4().to_string(), changed).await {
        tracing::warn!(key, %error, "not announced");
    }
}
