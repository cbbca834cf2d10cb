//! `/orders/{id}/…`: cancels a placed order, charges it again, and sends its message again.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use orders_service::{Json, Problem};
use tokio::time::Instant;

use super::{
    orders::{OrderView, read_id},
    state::AppState,
};
use crate::{
    changes::{ChangeResult, TargetState},
    order_cache::OrderState,
    order_id::OrderRef,
    prefer::Prefer,
};

/// Cancel an order.
///
/// An order that is not charged yet is never charged. A charge is refunded once, and the customer
/// is notified. If it is not known whether the charge was made, this is determined first. A
/// repeated request changes nothing.
#[utoipa::path(
    post,
    path = "/orders/{id}/cancel",
    tag = "orders",
    params(
        ("id" = String, Path, description = "The order's number, or the name of its resource"),
        ("Prefer" = Option<String>, Header, description = "`respond-async` or `wait=N`, as for placing an order")
    ),
    responses(
        (status = 200, description = "Cancelled (`reason` Cancelled) or refunded (`reason` Refunded), now or before", body = OrderView),
        (status = 202, description = "The cancellation is requested, and not complete yet", body = OrderView),
        (status = 404, description = "No such order", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The order was refused: there is nothing to cancel", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Kubernetes refuses the change, for example by a policy", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nothing was done: the order store does not respond; see Retry-After", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It is unknown whether the change was requested; repeat the request", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn cancel(
    State(app): State<AppState>,
    id: Result<Path<String>, PathRejection>,
    prefer: Prefer,
) -> Result<Response, Problem> {
    let id = read_id(id)?;
    respond(&app, &id, app.orders.cancel(&id).await?, prefer).await
}

/// Charge a refused order again.
///
/// Use this after a refill, for example. The request starts another attempt, which has its own key.
/// `history` shows all attempts. An order can be charged again only if it was refused for
/// insufficient funds or a missing account.
#[utoipa::path(
    post,
    path = "/orders/{id}/retry",
    tag = "orders",
    params(
        ("id" = String, Path, description = "The order's number, or the name of its resource"),
        ("Prefer" = Option<String>, Header, description = "`respond-async` or `wait=N`, as for placing an order")
    ),
    responses(
        (status = 200, description = "The attempt was decided: `status` is 1 if it was charged, 0 if it was refused again", body = OrderView),
        (status = 202, description = "The attempt is requested, and not decided yet", body = OrderView),
        (status = 404, description = "No such order", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The order was not refused for insufficient funds or a missing account, or it was deleted", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Kubernetes refuses the change, for example by a policy", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nothing was done: the order store does not respond; see Retry-After", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It is unknown whether the change was requested; repeat the request", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn retry(
    State(app): State<AppState>,
    id: Result<Path<String>, PathRejection>,
    prefer: Prefer,
) -> Result<Response, Problem> {
    let id = read_id(id)?;
    respond(&app, &id, app.orders.retry(&id).await?, prefer).await
}

/// Send the customer's message again.
///
/// A message can be sent again only if its delivery was given up (`message_state` DeadLettered or
/// Undeliverable).
#[utoipa::path(
    post,
    path = "/orders/{id}/notifications/resend",
    tag = "orders",
    params(
        ("id" = String, Path, description = "The order's number, or the name of its resource"),
        ("Prefer" = Option<String>, Header, description = "`respond-async` or `wait=N`, as for placing an order")
    ),
    responses(
        (status = 200, description = "The delivery was tried: see `message_state`", body = OrderView),
        (status = 202, description = "The message is requested again, and its delivery is in progress", body = OrderView),
        (status = 404, description = "No such order", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The message was sent, its delivery is in progress, or the order was deleted", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Kubernetes refuses the change, for example by a policy", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nothing was done: the order store does not respond; see Retry-After", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It is unknown whether the change was requested; repeat the request", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn resend(
    State(app): State<AppState>,
    id: Result<Path<String>, PathRejection>,
    prefer: Prefer,
) -> Result<Response, Problem> {
    let id = read_id(id)?;
    respond(&app, &id, app.orders.resend(&id).await?, prefer).await
}

/// Responds with the order once the change is complete, or with its current state when the wait
/// ends.
async fn respond(app: &AppState, order: &OrderRef, result: ChangeResult, prefer: Prefer) -> Result<Response, Problem> {
    let (subscription, target) = match result {
        ChangeResult::Complete(order) => return Ok(Json(OrderView::from(&*order)).into_response()),
        ChangeResult::InProgress { subscription, target } => (subscription, target),
    };
    if !prefer.respond_async {
        let deadline = Instant::now() + prefer.wait.unwrap_or(app.wait);
        subscription.wait_for(|state| target.is_reached(state), deadline, app.mail_wait).await;
    }
    let order = app.orders.get(order).await?;
    let code = status_code(target, OrderState::of(&order));
    Ok((code, Json(OrderView::from(&order))).into_response())
}

fn status_code(target: TargetState, state: OrderState) -> StatusCode {
    if target.is_reached(state) { StatusCode::OK } else { StatusCode::ACCEPTED }
}
