//! One pass over an order: its reconciliation.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use orders_crds::{OrderStatus, Outcome, RetryStep};

use super::{
    context::Context,
    execute::execute,
    intent::Intent,
    pass::Pass,
    read::{Found, read},
    status::StatusBuilder,
    work,
};
use crate::{
    kube::{
        KubeError, OrderGuard,
        events::OrderEvent,
        finalizer::{has_finalizer, is_overdue, needs_finalizer, set_finalizer},
        status_patch::{Written, write_status},
    },
    ports::{LateReply, Notice, Purchase},
};

/// When an order needs another pass, unless it changes earlier.
pub struct Requeue {
    /// The delay until the next pass.
    pub after: Duration,
    /// The late reply to the request that timed out. If it arrives, the next pass begins earlier.
    pub late: Option<LateReply>,
}

/// Reads the order and the intent, decides and executes its steps, writes the status,
/// publishes events, and adds or removes the finalizer.
///
/// # Errors
/// [`KubeError`]. The next pass repeats all requests of this pass under the same keys.
pub async fn reconcile(order: &Arc<OrderGuard>, context: &Context) -> Result<Option<Requeue>, KubeError> {
    if !work::needs_pass(order, Timestamp::now()) {
        return Ok(None);
    }
    let Some(found) = read(order, &context.client).await? else { return Ok(None) };
    let intent = Intent::of(order.meta(), found.spec.as_ref().ok(), &found.status);
    let pass = decide_and_execute(order, found, &intent, context).await;
    // Registered before the write, so that a reply that arrives during the write is not missed.
    let late = pass.late_reply(context);
    let Written::Version(version) = write_and_publish(order, &pass, context).await? else {
        context.deletion.settle_if_open(order, pass);
        return Ok(None);
    };
    let Written::Version(_) = settle_finalizer(order, &pass.after.status, version, context).await? else {
        context.deletion.settle_if_open(order, pass);
        return Ok(None);
    };
    Ok(pass.next.map(|next| Requeue { after: pause_until(next), late }))
}

async fn decide_and_execute(order: &OrderGuard, found: Found, intent: &Intent, context: &Context) -> Pass {
    let uid = order.uid().unwrap_or_default();
    let (before, mut after) = (found.status.clone(), StatusBuilder::new(found.status, order.meta().generation));
    let mut purchase =
        found.spec.and_then(|spec| Purchase::read(&uid, before.attempt(), &spec).map_err(|error| error.to_string()));
    let next = match &mut purchase {
        Ok(purchase) => {
            if late_reply(&before, purchase, context).and_then(FutureExt::now_or_never) == Some(true) {
                after.answered_late(Timestamp::now());
            }
            execute(&uid, purchase, intent, &mut after, &*context.billing, &*context.notify).await
        }
        // A decided order stays decided, even if it can no longer be read.
        Err(problem) if before.outcome() != Outcome::Undecided => {
            tracing::warn!(order = order.name_any(), problem, "a decided order cannot be read any more");
            None
        }
        Err(problem) => {
            after.invalid(problem, Timestamp::now());
            None
        }
    };
    Pass { purchase, before, after, next }
}

/// Writes the status if it changed, waits until the watch has it, and publishes the events.
async fn write_and_publish(order: &OrderGuard, pass: &Pass, context: &Context) -> Result<Written, KubeError> {
    let status = &pass.after.status;
    if *status == pass.before {
        return Ok(Written::Version(order.resource_version()));
    }
    let echo = context.echo.expect(order);
    let written = write_status(order, status, &context.client).await?;
    if written == Written::Gone {
        return Ok(Written::Gone);
    }
    if let (true, Ok(purchase)) = (status.balance != pass.before.balance, &pass.purchase) {
        context.customers.balance_changed(purchase.login.as_ref());
    }
    pass.after.events.iter().for_each(|event| observe(order, event));
    echo.arrives().await;
    context.events.publish(&pass.after.events, &order.object_ref(&())).await;
    Ok(written)
}

async fn settle_finalizer(
    order: &OrderGuard,
    status: &OrderStatus,
    version: Option<String>,
    context: &Context,
) -> Result<Written, KubeError> {
    let needed = needs_finalizer(order, status);
    let abandoned = needed && is_overdue(order, Timestamp::now());
    let keeps = needed && !abandoned;
    if has_finalizer(order) == keeps {
        return Ok(Written::Version(version));
    }
    if abandoned {
        metrics::counter!("orders_deletions_abandoned_total").increment(1);
        tracing::error!(
            order = order.name_any(),
            "let go with its charge unknown or its customer not notified; orders-audit shows what became of the charge"
        );
    }
    set_finalizer(order, version, keeps, &context.client).await
}

impl Pass {
    /// The reply that the order waits for, if it may arrive late.
    fn late_reply(&self, context: &Context) -> Option<LateReply> {
        late_reply(&self.after.status, self.purchase.as_ref().ok()?, context)
    }
}

fn late_reply(status: &OrderStatus, purchase: &Purchase, context: &Context) -> Option<LateReply> {
    match status.retry.as_ref()?.step {
        RetryStep::Notification => context.notify.late_reply(purchase, &Notice::of(status)?),
        step @ (RetryStep::Payment | RetryStep::Cancellation | RetryStep::Refund) => context.billing.late_reply(step, purchase),
    }
}

/// Counts and logs an event.
fn observe(order: &OrderGuard, event: &OrderEvent) {
    let (reason, action) = (event.reason.as_str(), event.action);
    metrics::counter!("orders_steps_total", "action" => action, "reason" => reason).increment(1);
    tracing::info!(order = order.name_any(), action, reason, note = event.note);
}

fn pause_until(time: Timestamp) -> Duration {
    let delay = time.duration_since(Timestamp::now());
    // Never zero: a wrong clock must not lead to a busy loop.
    Duration::try_from(delay).unwrap_or_default().max(Duration::from_millis(50))
}
