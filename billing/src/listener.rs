//! Billing's broker client. It handles the requests that the broker delivers and publishes the
//! outcomes in the outbox.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use orders_contracts::{
    billing::NewAuthorization,
    events::{CloseRequested, Decided, PaymentRequested, RefundRequested, Refunded},
    topology::{self, CLOSE_REQUESTED, PAYMENT_DECIDED, PAYMENT_REFUNDED, REFUND_REQUESTED},
};
use orders_crds::Money;
use orders_service::{
    broker::{Broker, HandlerError, Received, publish::PublishError},
    shutdown::Shutdown,
};
use tokio::sync::Notify;

use crate::{
    error::LedgerError,
    ledger::{self, Kind, Ledger, Movement, OutboxEntry, RecordedMovement, Refund},
};

/// The maximum number of outcomes that are published at the same time.
const OUTBOX_BATCH: i64 = 64;

/// The interval at which billing reads the outbox for remaining entries. An entry remains if
/// another replica or a crash left it, or if the broker did not accept it.
const OUTBOX_INTERVAL: Duration = Duration::from_secs(1);

/// Handles requests and publishes outcomes until shutdown.
pub async fn listen(broker: Broker, ledger: Ledger, shutdown: Shutdown) {
    let outbox_changed = Arc::new(Notify::new());
    let handle = |received: Received| {
        let (ledger, outbox_changed) = (ledger.clone(), outbox_changed.clone());
        async move {
            match &*received.subject {
                CLOSE_REQUESTED => close(&ledger, received.data()?).await?,
                REFUND_REQUESTED => refund(&ledger, received.data()?).await?,
                _ => charge(&ledger, received.data()?).await?,
            }
            outbox_changed.notify_one();
            Ok(())
        }
    };
    let publishing = publish_outbox(&broker, &ledger, &outbox_changed);
    let handling = broker.consume(&topology::BILLING, handle, shutdown.requested());
    tokio::select! { () = handling => {}, () = publishing => {} }
    // Publish the last outcomes. If this fails, the next process publishes them.
    if let Err(error) = publish_all(&broker, &ledger).await {
        tracing::warn!(error, "outcomes remain in the outbox");
    }
}

/// Charges the account and adds the outcome to the outbox, in one database transaction.
async fn charge(ledger: &Ledger, request: PaymentRequested) -> Result<(), HandlerError> {
    let amount = require_positive(request.amount)?;
    let authorization = request.authorization.as_ref();
    let metadata = authorization.map(NewAuthorization::validate).transpose().map_err(HandlerError::Reject)?;
    let movement = Movement {
        kind: Kind::Charge,
        key: &request.key,
        login: request.login.as_ref(),
        amount,
        charge_key: None,
        authorization: ledger::NewAuthorization::new(authorization, metadata.as_deref()),
    };
    to_handler_result(ledger.record_with_outbox(&movement, request.email.as_ref()).await)
}

/// Closes a charge, so that it can no longer be made.
async fn close(ledger: &Ledger, request: CloseRequested) -> Result<(), HandlerError> {
    let amount = require_positive(request.amount)?;
    to_handler_result(ledger.close_with_outbox(&request.key, request.login.as_ref(), amount, request.email.as_ref()).await)
}

/// Refunds a charge.
async fn refund(ledger: &Ledger, request: RefundRequested) -> Result<(), HandlerError> {
    let amount = require_positive(request.amount)?;
    let refund = Refund { key: &request.key, charge_key: &request.key, login: request.login.as_ref(), amount };
    to_handler_result(ledger.refund_with_outbox(&refund).await)
}

fn require_positive(amount: Money) -> Result<Money, HandlerError> {
    amount.require_positive().map_err(|error| HandlerError::Reject(format!("amount: {error}")))
}

fn to_handler_result(recorded: Result<RecordedMovement, LedgerError>) -> Result<(), HandlerError> {
    match recorded {
        Ok(_) => Ok(()),
        Err(LedgerError::Database(error)) => Err(HandlerError::Retry(format!("database: {error}"))),
        // The operator repeats the request if the earlier charge is not settled by the last delivery.
        Err(error @ LedgerError::ReferenceInUse) => Err(HandlerError::Retry(error.to_string())),
        Err(error) => Err(HandlerError::Reject(error.to_string())),
    }
}

/// Publishes the entries of the outbox. Never returns.
async fn publish_outbox(broker: &Broker, ledger: &Ledger, outbox_changed: &Notify) {
    loop {
        if let Err(error) = publish_all(broker, ledger).await {
            tracing::warn!(error, "outcomes remain in the outbox; retrying");
            tokio::time::sleep(OUTBOX_INTERVAL).await;
        }
        let _ = tokio::time::timeout(OUTBOX_INTERVAL, outbox_changed.notified()).await;
    }
}

async fn publish_all(broker: &Broker, ledger: &Ledger) -> Result<(), String> {
    loop {
        let entries = ledger.outbox(OUTBOX_BATCH).await.map_err(|error| error.to_string())?;
        let published = join_all(entries.iter().map(|entry| publish_entry(broker, ledger, entry))).await;
        published.into_iter().collect::<Result<(), String>>()?;
        if (entries.len() as i64) < OUTBOX_BATCH {
            return Ok(());
        }
    }
}

async fn publish_entry(broker: &Broker, ledger: &Ledger, entry: &OutboxEntry) -> Result<(), String> {
    // The broker recognizes a repeated publication of this row by its ID.
    let id = format!("{}-{}", entry.key, entry.id);
    let published: Result<(), PublishError> = match entry.kind {
        Kind::Refund => broker.publish(PAYMENT_REFUNDED, id, refunded_event(entry)?).await,
        Kind::Charge | Kind::Capture | Kind::Void | Kind::Refill => {
            broker.publish(PAYMENT_DECIDED, id, decided_event(entry)?).await
        }
    };
    published.map_err(|error| error.to_string())?;
    ledger.remove_from_outbox(entry.id).await.map_err(|error| error.to_string())
}

fn refunded_event(entry: &OutboxEntry) -> Result<Refunded, String> {
    Ok(Refunded {
        key: entry.key.clone(),
        login: entry.login.clone().try_into().map_err(|error| format!("login: {error}"))?,
        amount: entry.amount,
        balance: entry.balance.ok_or("the refund has no balance")?,
    })
}

fn decided_event(entry: &OutboxEntry) -> Result<Decided, String> {
    Ok(Decided {
        key: entry.key.clone(),
        login: entry.login.clone().try_into().map_err(|error| format!("login: {error}"))?,
        email: entry.email.clone().try_into().map_err(|error| format!("email: {error}"))?,
        amount: entry.amount,
        outcome: entry.outcome.to_charge_outcome().ok_or("a charge cannot have the outcome balance_limit")?,
        balance: entry.balance,
        resends: 0,
    })
}
