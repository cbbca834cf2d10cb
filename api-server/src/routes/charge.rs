//! `/orders/{id}/charge`: the charge of an order, as the ledger has it.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    response::Response,
};
use orders_contracts::billing::ChargeState;
use orders_crds::order::charge_key;
use orders_service::{Problem, problem::CONTENT_TYPE};

use super::{orders::read_id, proxy::get, state::AppState};

/// Show the charge of an order.
///
/// Shows the latest attempt to charge the order, as the ledger has it. `phase` is `Authorized` until the
/// order is archived, then `Captured`. The charge of an order that vanished before its customer was told
/// is `Voided`.
#[utoipa::path(
    get,
    path = "/orders/{id}/charge",
    operation_id = "show_charge",
    tag = "orders",
    params(("id" = String, Path, description = "The order's number, or the name of its resource")),
    responses(
        (status = 200, description = "The charge", body = ChargeState),
        (status = 404, description = "No such order, or nothing was charged or refused for it yet", body = Problem, content_type = CONTENT_TYPE),
        (status = 503, description = "The order store or billing does not respond; see Retry-After", body = Problem, content_type = CONTENT_TYPE)
    )
)]
pub(super) async fn show(State(app): State<AppState>, id: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let order = app.orders.get(&read_id(id)?).await?;
    let attempt = order.status.as_ref().map_or(1, |status| status.attempt());
    // A key is a UID, at most with a dot and a number: it needs no escaping in a path.
    app.billing.forward(get(format!("/billing/charges/{}", charge_key(order.key_uid(), attempt)))).await
}
