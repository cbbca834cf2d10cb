//! Billing over the broker: requests come in, outcomes go out by way of the outbox.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use orders_broker::{
    Broker, Received, Undealt,
    messages::{self, CloseRequested, Decided, PaymentRequested, RefundRequested, Refunded},
    publish::Unpublished,
    topology::{self, CLOSE_REQUESTED, PAYMENT_DECIDED, PAYMENT_REFUNDED, REFUND_REQUESTED},
};
use orders_crds::Money;
use orders_service::shutdown::Shutdown;
use tokio::sync::Notify;

use crate::{
    error::LedgerError,
    ledger::{Kind, Ledger, Movement, Outcome, Recorded, Refund, Untold},
};

/// Outcomes told at once.
const BATCH: i64 = 64;

/// How often the outbox is looked through for what was left over: another
/// replica's, a crash's, or what the broker did not take.
const INTERVAL: Duration = Duration::from_secs(1);

/// Deals with requests and tells outcomes until shutdown.
pub async fn listen(broker: Broker, ledger: Ledger, shutdown: Shutdown) {
    let news = Arc::new(Notify::new());
    let deal = |received: Received| {
        let (ledger, news) = (ledger.clone(), news.clone());
        async move {
            match &*received.subject {
                CLOSE_REQUESTED => close(&ledger, received.data()?).await?,
                REFUND_REQUESTED => refund(&ledger, received.data()?).await?,
                _ => charge(&ledger, received.data()?).await?,
            }
            news.notify_one();
            Ok(())
        }
    };
    let telling = tell(&broker, &ledger, &news);
    let dealing = broker.consume(&topology::BILLING, deal, shutdown.requested());
    tokio::select! { () = dealing => {}, () = telling => {} }
    // What was dealt with last is told now, or by whoever runs next.
    if let Err(error) = tell_all(&broker, &ledger).await {
        tracing::warn!(error, "outcomes are left to tell");
    }
}

/// Moves the money and notes that the outcome is to be told, in one database transaction.
async fn charge(ledger: &Ledger, request: PaymentRequested) -> Result<(), Undealt> {
    let amount = positive(request.amount)?;
    let movement = Movement { kind: Kind::Charge, key: &request.key, login: request.login.as_ref(), amount, charge_key: None };
    dealt_with(ledger.record_to_tell(&movement, request.email.as_ref()).await)
}

/// Sees to it that a charge cannot land any more, if it has not.
async fn close(ledger: &Ledger, request: CloseRequested) -> Result<(), Undealt> {
    let amount = positive(request.amount)?;
    dealt_with(ledger.close_to_tell(&request.key, request.login.as_ref(), amount, request.email.as_ref()).await)
}

/// Gives a charge back.
async fn refund(ledger: &Ledger, request: RefundRequested) -> Result<(), Undealt> {
    let amount = positive(request.amount)?;
    let refund = Refund { key: &request.key, charge_key: &request.key, login: request.login.as_ref(), amount };
    dealt_with(ledger.refund_to_tell(&refund).await)
}

fn positive(amount: Money) -> Result<Money, Undealt> {
    amount.require_positive().map_err(|error| Undealt::Never(format!("amount: {error}")))
}

fn dealt_with(recorded: Result<Recorded, LedgerError>) -> Result<(), Undealt> {
    match recorded {
        Ok(_) => Ok(()),
        Err(LedgerError::Database(error)) => Err(Undealt::Later(format!("database: {error}"))),
        Err(error) => Err(Undealt::Never(error.to_string())),
    }
}

/// Tells what there is to tell, for ever.
async fn tell(broker: &Broker, ledger: &Ledger, news: &Notify) {
    loop {
        if let Err(error) = tell_all(broker, ledger).await {
            tracing::warn!(error, "outcomes are left to tell; trying again");
            tokio::time::sleep(INTERVAL).await;
        }
        let _ = tokio::time::timeout(INTERVAL, news.notified()).await;
    }
}

async fn tell_all(broker: &Broker, ledger: &Ledger) -> Result<(), String> {
    loop {
        let untold = ledger.untold(BATCH).await.map_err(|error| error.to_string())?;
        let told = join_all(untold.iter().map(|outcome| tell_one(broker, ledger, outcome))).await;
        told.into_iter().collect::<Result<(), String>>()?;
        if (untold.len() as i64) < BATCH {
            return Ok(());
        }
    }
}

async fn tell_one(broker: &Broker, ledger: &Ledger, untold: &Untold) -> Result<(), String> {
    // The broker knows a repeat of this row by its id.
    let id = format!("{}-{}", untold.key, untold.id);
    let told: Result<(), Unpublished> = match untold.kind {
        Kind::Refund => broker.publish(PAYMENT_REFUNDED, id, refunded(untold)?).await,
        Kind::Charge | Kind::Refill => broker.publish(PAYMENT_DECIDED, id, decided(untold)?).await,
    };
    told.map_err(|error| error.to_string())?;
    ledger.told(untold.id).await.map_err(|error| error.to_string())
}

fn refunded(untold: &Untold) -> Result<Refunded, String> {
    Ok(Refunded {
        key: untold.key.clone(),
        login: untold.login.clone().try_into().map_err(|error| format!("login: {error}"))?,
        amount: untold.amount,
        balance: untold.balance.ok_or("a refund leaves a balance")?,
    })
}

fn decided(untold: &Untold) -> Result<Decided, String> {
    Ok(Decided {
        key: untold.key.clone(),
        login: untold.login.clone().try_into().map_err(|error| format!("login: {error}"))?,
        email: untold.email.clone().try_into().map_err(|error| format!("email: {error}"))?,
        amount: untold.amount,
        outcome: match untold.outcome {
            Outcome::Done => messages::Outcome::Charged,
            Outcome::InsufficientFunds => messages::Outcome::InsufficientFunds,
            Outcome::AccountNotFound => messages::Outcome::AccountNotFound,
            Outcome::Closed => messages::Outcome::Closed,
            Outcome::BalanceLimit => return Err("a charge cannot raise a balance".to_owned()),
        },
        balance: untold.balance,
        resends: 0,
    })
}
