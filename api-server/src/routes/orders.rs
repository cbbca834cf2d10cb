//! `/orders`: places, shows and lists orders.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use kube::ResourceExt;
use orders_crds::{
    ConditionType, EMail, Login, Money, Order, Outcome, Reason, Refusal, conditions, money::json_number, order::MAX_SECONDS,
};
use orders_service::{
    IdempotencyKey, Json, Problem,
    query::{Limit, Query},
};
use serde::{Deserialize, Deserializer, Serialize, de};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::state::AppState;
use crate::{
    listing::{Cursor, Filter},
    order_cache::OrderState,
    order_id::{OrderId, OrderRef},
    orders::NewOrder,
    prefer::Prefer,
};

/// The default number of orders on a page.
const DEFAULT_LIMIT: u16 = 20;

/// The maximum number of orders on a page.
const MAX_LIMIT: u16 = 100;

/// A request to place an order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderRequest {
    /// Login of the account to charge.
    #[schema(value_type = String, example = "Aurore56", max_length = 64)]
    login: Login,
    /// Address that the outcome is e-mailed to.
    #[schema(value_type = String, format = Email, example = "Gage_Lind@gmail.com", max_length = 254)]
    e_mail: EMail,
    /// Number of the cart.
    #[serde(deserialize_with = "cart_id")]
    #[schema(minimum = 0, maximum = 9007199254740991_i64, example = 0)]
    id_cart: i64,
    /// Amount to charge: greater than zero, at most two decimals, at most 999999999999.99.
    #[serde(deserialize_with = "positive_amount")]
    #[schema(value_type = f64, example = 100, exclusive_minimum = 0.0, multiple_of = 0.01)]
    amount: Money,
    /// Number of seconds within which the charge must begin. Otherwise, the order is refused with
    /// reason `DeadlineExceeded`. If not given, there is no limit.
    #[serde(default, deserialize_with = "deadline_seconds")]
    #[schema(minimum = 1, maximum = 31536000, example = 60)]
    deadline_seconds: Option<i64>,
}

fn deadline_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let seconds = Option::<i64>::deserialize(deserializer)?;
    let is_valid = seconds.is_none_or(|seconds| (1..=MAX_SECONDS).contains(&seconds));
    if is_valid { Ok(seconds) } else { Err(de::Error::custom(format!("must be between 1 and {MAX_SECONDS}"))) }
}

fn positive_amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
    json_number::deserialize(deserializer)?.require_positive().map_err(de::Error::custom)
}

fn cart_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let id = i64::deserialize(deserializer)?;
    if (0..1 << 53).contains(&id) { Ok(id) } else { Err(de::Error::custom("must be between 0 and 9007199254740991")) }
}

/// The outcome of a placed order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderResponse {
    /// The order's number.
    #[schema(minimum = 1, maximum = 9007199254740991_i64, example = 14)]
    id: i64,
    /// 1: paid. 0: refused. 2: not decided yet.
    #[schema(minimum = 0, maximum = 2, example = 1)]
    status: u8,
}

/// Place an order.
///
/// The response is sent once the order is decided: 200 if it was charged, 400 with `"status":0` if
/// the balance is too small. By then, the balance and the message log show the outcome. If the
/// order is still undecided when the wait ends, the response is 202: get the order at `Location`
/// later.
#[utoipa::path(
    post,
    path = "/orders/",
    tag = "orders",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated request with the same key refers to the same order: 1 to 255 visible ASCII characters, unique per login"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer 202 immediately. `wait=N`: wait at most N seconds (default 10, maximum 55)")
    ),
    request_body = OrderRequest,
    responses(
        (status = 200, description = "Charged", body = OrderResponse, example = json!({"id": 14, "status": 1})),
        (status = 400, description = "Refused: the balance is less than the amount. (Malformed JSON is also answered 400, with a problem.)", content(
            (OrderResponse = "application/json", example = json!({"id": 15, "status": 0})),
            (Problem = "application/problem+json", example = json!({"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "the body is not valid JSON: EOF while parsing an object"}))
        )),
        (status = 202, description = "Not decided yet", body = OrderResponse, headers(("Location" = String, description = "URL of the order, which shows the outcome"), ("Retry-After" = u32, description = "Seconds after which to get it")), example = json!({"id": 16, "status": 2})),
        (status = 404, description = "No such account; nothing was charged", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The order was deleted before it was decided", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing, unknown or invalid, or the Idempotency-Key was used for another order", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Kubernetes refuses the order, for example by a policy; `detail` has the reason", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nothing was done: the order store does not respond, or a quota or limit is reached; see Retry-After", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It is unknown whether the order was placed; `id` is its number", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn create(
    State(app): State<AppState>,
    key: Option<IdempotencyKey>,
    prefer: Prefer,
    Json(request): Json<OrderRequest>,
) -> Result<Response, Problem> {
    let deadline = Instant::now() + prefer.wait.unwrap_or(app.wait);
    let new = NewOrder {
        login: request.login,
        email: request.e_mail,
        cart_id: request.id_cart,
        amount: request.amount,
        deadline_seconds: request.deadline_seconds,
    };
    let placed = app.orders.place(&new, key.as_ref()).await?;
    if prefer.respond_async {
        return Ok(respond(StatusCode::ACCEPTED, placed.id, 2));
    }
    let id = placed.id;
    match placed.wait(deadline, app.mail_wait).await {
        OrderState::Undecided => Ok(respond(StatusCode::ACCEPTED, id, 2)),
        OrderState::Deleted => {
            Err(Problem::new(StatusCode::GONE, "the order was deleted before it was decided").with_id(id.number()))
        }
        OrderState::Decided { outcome, .. } => respond_with_outcome(id, outcome),
    }
}

fn respond_with_outcome(id: OrderId, outcome: Outcome) -> Result<Response, Problem> {
    match outcome {
        Outcome::Paid => Ok(respond(StatusCode::OK, id, 1)),
        Outcome::Undecided | Outcome::Unknown => Ok(respond(StatusCode::ACCEPTED, id, 2)),
        Outcome::Refused(Refusal::AccountNotFound) => {
            let problem = Problem::not_found("there is no account with this login; register it first. Nothing was charged");
            Err(Problem { field: Some("login".to_owned()), ..problem }.with_id(id.number()))
        }
        Outcome::Refused(
            Refusal::InsufficientFunds
            | Refusal::Cancelled
            | Refusal::DeadlineExceeded
            | Refusal::AlreadyExists
            | Refusal::Refunded
            | Refusal::InvalidOrder,
        ) => Ok(respond(StatusCode::BAD_REQUEST, id, 0)),
    }
}

fn respond(code: StatusCode, id: OrderId, status: u8) -> Response {
    let mut response = (code, Json(OrderResponse { id: id.number(), status })).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/orders/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    if code == StatusCode::ACCEPTED {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The current state of an order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderView {
    /// The order's number. Null for an order that was created with kubectl.
    id: Option<i64>,
    /// Name of the Kubernetes resource.
    #[schema(example = "order-14")]
    name: String,
    /// Login of the account.
    login: String,
    /// Address that the outcome is e-mailed to.
    e_mail: String,
    /// Number of the cart.
    id_cart: i64,
    /// Amount of the order.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    amount: Money,
    /// 1: paid. 0: refused. 2: not decided yet.
    status: u8,
    /// Reason for the status: `Pending`, `Processing`, `Paid`, `InsufficientFunds`, `AccountNotFound` …
    reason: String,
    /// The reason in words.
    message: String,
    /// Balance of the account right after the charge or at the refusal.
    #[schema(value_type = Option<f64>)]
    balance: Option<Balance>,
    /// Amount of the charge that was refunded. Null if nothing was refunded.
    #[schema(value_type = Option<f64>)]
    refunded: Option<Balance>,
    /// Whether the cancellation of the order was requested.
    cancel_requested: bool,
    /// The number of the attempt to charge, from 1.
    attempt: i32,
    /// State of the customer's message: `Sent`, `Delivering`, `DeadLettered` … Null before there is
    /// a message.
    message_state: Option<String>,
    /// When the order was placed (RFC 3339).
    created: Option<String>,
    /// History of the order, oldest entry first: the first entry and the latest fifteen entries.
    history: Vec<HistoryEntry>,
}

#[derive(Debug, Serialize)]
struct Balance(#[serde(with = "json_number")] Money);

/// An entry of the history of an order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryEntry {
    /// When it happened (RFC 3339).
    time: String,
    /// Action: `Charge`, `Cancel`, `Refund`, `Notify`, `Retry` …
    action: String,
    /// Reason for the result of the action.
    reason: String,
    /// The reason in words.
    message: String,
}

impl From<&Order> for OrderView {
    fn from(order: &Order) -> Self {
        let status = order.status.clone().unwrap_or_default();
        let succeeded = conditions::find(&status.conditions, ConditionType::Succeeded);
        let notified = conditions::find(&status.conditions, ConditionType::Notified);
        OrderView {
            id: order.spec.id,
            name: order.name_any(),
            login: order.spec.login.clone(),
            e_mail: order.spec.email.clone(),
            id_cart: order.spec.cart_id,
            amount: order.spec.amount.parse().unwrap_or_default(),
            status: match order.outcome() {
                Outcome::Paid => 1,
                Outcome::Refused(_) => 0,
                Outcome::Undecided | Outcome::Unknown => 2,
            },
            reason: succeeded.map_or(Reason::Pending.as_str(), |condition| &condition.reason).to_owned(),
            message: succeeded.map_or("The operator has not handled the order yet.", |condition| &condition.message).to_owned(),
            balance: status.balance.map(Balance),
            refunded: status.refunded.map(Balance),
            cancel_requested: order.spec.cancel_requested.unwrap_or_default(),
            attempt: status.attempt(),
            message_state: notified.map(|condition| condition.reason.clone()),
            created: order.creation_timestamp().map(|time| time.0.to_string()),
            history: status.history.iter().map(HistoryEntry::from).collect(),
        }
    }
}

impl From<&orders_crds::HistoryEntry> for HistoryEntry {
    fn from(entry: &orders_crds::HistoryEntry) -> Self {
        HistoryEntry {
            time: entry.time.0.to_string(),
            action: entry.action.clone(),
            reason: entry.reason.clone(),
            message: entry.message.clone(),
        }
    }
}

/// Show an order.
///
/// Reads the order from the Kubernetes API, so that an order is found as soon as it is placed, and
/// otherwise from the archive.
#[utoipa::path(
    get,
    path = "/orders/{id}",
    tag = "orders",
    params(("id" = String, Path, description = "The order's number, or the name of its resource")),
    responses(
        (status = 200, description = "The order with its state, reason and history", body = OrderView),
        (status = 404, description = "No such order", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The order store does not respond; see Retry-After", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(
    State(app): State<AppState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<OrderView>, Problem> {
    let order = app.orders.get(&read_id(id)?).await?;
    Ok(Json(OrderView::from(&order)))
}

pub(super) fn read_id(id: Result<Path<String>, PathRejection>) -> Result<OrderRef, Problem> {
    let order = id.ok().and_then(|Path(id)| OrderRef::parse(&id));
    order.ok_or_else(|| {
        Problem::not_found("there is no order with this id: an id is a positive integer, or the name of a resource")
    })
}

/// Selects the orders to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only orders of this login.
    #[param(value_type = Option<String>)]
    login: Option<Login>,
    /// Only orders with this `reason`, such as `Paid`.
    #[serde(default, deserialize_with = "reason")]
    #[param(value_type = Option<String>)]
    state: Option<Reason>,
    /// Only orders placed at this time or later (RFC 3339, such as `2026-01-31T00:00:00Z`).
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Only orders placed before this time (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Number of orders on a page: 1 to 100, default 20.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 100)]
    limit: Option<Limit<MAX_LIMIT>>,
    /// Position at which the page begins: `next_cursor` of the previous page.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
}

fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Reason>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|_| serde::de::Error::custom("must be a reason, such as Paid or InsufficientFunds"))
}

/// A page of orders, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderPage {
    /// The orders.
    items: Vec<OrderView>,
    /// The `cursor` of the next page. Null on the last page.
    next_cursor: Option<String>,
}

/// List orders, newest first.
///
/// Lists live and archived orders as one list. Orders that were created with kubectl are included,
/// with a null `id`. An order that was just placed may be missing for a moment, but
/// `GET /orders/{id}` finds it. Orders placed within one second are sorted by UID.
#[utoipa::path(
    get,
    path = "/orders",
    tag = "orders",
    params(ListParams),
    responses(
        (status = 200, description = "A page of orders", body = OrderPage),
        (status = 422, description = "A parameter is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The archive does not respond; see Retry-After", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(app): State<AppState>, Query(params): Query<ListParams>) -> Result<Json<OrderPage>, Problem> {
    let ListParams { login, state, from, to, limit, cursor } = params;
    let filter = Filter { login, state: state.map(|state| state.as_str().to_owned()), from, to };
    let (orders, next) =
        app.orders.page(&filter, cursor.as_ref(), limit.map_or(DEFAULT_LIMIT, |Limit(limit)| limit).into()).await?;
    let items = orders.iter().map(|order| OrderView::from(&**order)).collect();
    Ok(Json(OrderPage { items, next_cursor: next.map(|cursor| cursor.encode()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_the_body_of_the_contract() {
        let body = serde_json::to_string(&OrderResponse { id: 14, status: 1 }).unwrap();
        assert_eq!(body, r#"{"id":14,"status":1}"#);
    }
}
