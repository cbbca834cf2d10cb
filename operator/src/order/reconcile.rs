//! One pass over an order: its reconciliation.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use orders_crds::{OrderStatus, Outcome, RetryStep};

use super::{
    context::Context,
    execute::{Services, execute},
    intent::Intent,
    lifecycle::needs_pass,
    manifest,
    pass::Pass,
    read::{ParsedOrder, read},
    status::StatusBuilder,
};
use crate::{
    kube::{
        KubeError, OrderGuard,
        events::OrderEvent,
        finalizer::{has_finalizer, is_overdue, needs_finalizer, set_finalizer},
        status_patch::{WriteResult, write_status},
    },
    ports::{LateReply, Notice, Purchase},
};

/// When an order needs another pass, unless it changes earlier.
pub struct Requeue {
    /// The delay until the next pass.
    pub after: Duration,
    /// The late reply to the request that timed out. If it arrives, the next pass begins earlier.
    pub late_reply: Option<LateReply>,
}

/// Reads the order and the intent, decides and executes its steps, writes the status,
/// publishes events, and adds or removes the finalizer.
///
/// # Errors
/// [`KubeError`]. The next pass repeats all requests of this pass under the same keys.
pub async fn reconcile(order: &Arc<OrderGuard>, context: &Context) -> Result<Option<Requeue>, KubeError> {
    if !needs_pass(order, Timestamp::now()) {
        return Ok(None);
    }
    let Some(parsed) = read(order, &context.client).await? else { return Ok(None) };
    let intent = Intent::of(order.meta(), parsed.spec.as_ref().ok(), &parsed.status).with_clock_ahead(context.clock.ahead());
    let pass = decide_and_execute(order, parsed, &intent, context).await;
    // Registered before the write, so that a reply that arrives during the write is not missed.
    let late_reply = pass.late_reply(context);
    let WriteResult::Version(version) = write_and_publish(order, &pass, context).await? else {
        context.settlement.settle_deleted(order, pass);
        return Ok(None);
    };
    let WriteResult::Version(_) = settle_finalizer(order, &pass.after.status, version, context).await? else {
        context.settlement.settle_deleted(order, pass);
        return Ok(None);
    };
    Ok(pass.next.map(|next| Requeue { after: delay_until(next), late_reply }))
}

async fn decide_and_execute(order: &OrderGuard, parsed: ParsedOrder, intent: &Intent, context: &Context) -> Pass {
    let (before, mut after) = (parsed.status.clone(), StatusBuilder::new(parsed.status, order.meta().generation));
    let uid = before.adopted_from.clone().or(order.uid()).unwrap_or_default();
    let mut readable = parsed.spec.and_then(|spec| {
        let purchase = Purchase::read(&uid, before.attempt(), &spec).map_err(|error| error.to_string())?;
        let authorization = manifest::authorization(order.meta(), &spec, before.adopted_from.as_deref());
        Ok((Purchase { authorization, ..purchase }, spec))
    });
    let next = match &mut readable {
        Ok((purchase, spec)) => {
            if late_reply(&before, purchase, context).and_then(FutureExt::now_or_never) == Some(true) {
                after.retry_now(Timestamp::now());
            }
            let services = Services { billing: &*context.billing, notify: &*context.notify, names: &*context.names };
            execute(order.meta(), spec, purchase, *intent, &mut after, services).await
        }
        // A decided order stays decided, even if it can no longer be read.
        Err(problem) if before.outcome() != Outcome::Undecided => {
            tracing::warn!(order = order.name_any(), problem, "a decided order can no longer be read");
            None
        }
        Err(problem) => {
            after.refuse_invalid(problem, Timestamp::now());
            None
        }
    };
    after.observe_generation();
    Pass { purchase: readable.map(|(purchase, _)| purchase), before, after, next }
}

/// Writes the status if it changed, waits until the watch has it, and publishes the events.
async fn write_and_publish(order: &OrderGuard, pass: &Pass, context: &Context) -> Result<WriteResult, KubeError> {
    let status = &pass.after.status;
    if *status == pass.before {
        return Ok(WriteResult::Version(order.resource_version()));
    }
    let echo = context.echo.expect(order);
    let result = write_status(order, status, &context.client).await?;
    if result == WriteResult::NotFound {
        return Ok(WriteResult::NotFound);
    }
    if let (true, Ok(purchase)) = (status.balance != pass.before.balance, &pass.purchase) {
        context.customers.record_balance_change(purchase.login.as_ref());
    }
    pass.after.events.iter().for_each(|event| record(order, event));
    echo.wait().await;
    context.events.publish(&pass.after.events, &order.object_ref(&())).await;
    Ok(result)
}

async fn settle_finalizer(
    order: &OrderGuard,
    status: &OrderStatus,
    version: Option<String>,
    context: &Context,
) -> Result<WriteResult, KubeError> {
    let is_needed = needs_finalizer(order, status);
    let is_abandoned = is_needed && is_overdue(order, Timestamp::now());
    let keeps_finalizer = is_needed && !is_abandoned;
    if has_finalizer(order) == keeps_finalizer {
        return Ok(WriteResult::Version(version));
    }
    if is_abandoned {
        metrics::counter!("orders_deletions_abandoned_total").increment(1);
        tracing::error!(
            order = order.name_any(),
            "removing the finalizer although the charge is unknown or the customer is not notified; orders-audit shows the charge"
        );
    }
    set_finalizer(order, version, keeps_finalizer, &context.client).await
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
fn record(order: &OrderGuard, event: &OrderEvent) {
    let (reason, action) = (event.reason.as_str(), event.action);
    metrics::counter!("orders_steps_total", "action" => action, "reason" => reason).increment(1);
    tracing::info!(order = order.name_any(), action, reason, note = event.full_note());
}

fn delay_until(time: Timestamp) -> Duration {
    let delay = time.duration_since(Timestamp::now());
    // Never zero: a wrong clock must not lead to a busy loop.
    Duration::try_from(delay).unwrap_or_default().max(Duration::from_millis(50))
}
