//! `/orders`: placing orders and finding them.

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

use super::AppState;
use crate::{
    listing::{Cursor, Filter},
    order_id::OrderId,
    orders::NewOrder,
    outcome,
    prefer::Prefer,
};

/// Pages hold so many orders if the client does not say.
const DEFAULT_LIMIT: u16 = 20;

/// Pages hold at most so many orders.
const MAX_LIMIT: u16 = 100;

/// A request for an order.
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
    /// Refuse the order, with reason `DeadlineExceeded`, if its charge is not begun within so many seconds. No limit if not given.
    #[serde(default, deserialize_with = "deadline_seconds")]
    #[schema(minimum = 1, maximum = 31536000, example = 60)]
    deadline_seconds: Option<i64>,
}

fn deadline_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let seconds = Option::<i64>::deserialize(deserializer)?;
    let valid = seconds.is_none_or(|seconds| (1..=MAX_SECONDS).contains(&seconds));
    if valid { Ok(seconds) } else { Err(de::Error::custom(format!("must be between 1 and {MAX_SECONDS}"))) }
}

fn positive_amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
    json_number::deserialize(deserializer)?.require_positive().map_err(de::Error::custom)
}

fn cart_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let id = i64::deserialize(deserializer)?;
    if (0..1 << 53).contains(&id) { Ok(id) } else { Err(de::Error::custom("must be between 0 and 9007199254740991")) }
}

/// What became of a placed order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderAnswer {
    /// The order's number.
    #[schema(minimum = 1, maximum = 9007199254740991_i64, example = 14)]
    id: i64,
    /// 1: paid. 0: refused. 2: not decided yet.
    #[schema(minimum = 0, maximum = 2, example = 1)]
    status: u8,
}

/// Cursor an order.
///
/// Answers once the order is decided: 200 if it was charged, 400 with `"status":0`
/// if the balance is too small. By then the balance and the message log show the
/// outcome. An order that is still undecided when the wait ends is answered 202:
/// ask for it again at `Location`.
#[utoipa::path(
    post,
    path = "/orders/",
    tag = "orders",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat of this request name the same order: 1 to 255 visible ASCII characters, unique per login"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer 202 at once. `wait=N`: wait N seconds at most (10 if not given, 60 at most)")
    ),
    request_body = OrderRequest,
    responses(
        (status = 200, description = "Charged", body = OrderAnswer, example = json!({"id": 14, "status": 1})),
        (status = 400, description = "Refused: the balance is less than the amount. (Malformed JSON is a 400, too, with a problem.)", content(
            (OrderAnswer = "application/json", example = json!({"id": 15, "status": 0})),
            (Problem = "application/problem+json", example = json!({"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "the body is not valid JSON: EOF while parsing an object"}))
        )),
        (status = 202, description = "Not decided yet", body = OrderAnswer, headers(("Location" = String, description = "Where to ask for the outcome")), example = json!({"id": 16, "status": 2})),
        (status = 404, description = "No such account; nothing was charged", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The order was deleted before it was decided", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing, unknown or invalid, or the Idempotency-Key was used for another order", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The order store does not answer; see Retry-After", body = Problem, content_type = "application/problem+json")
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
        return Ok(answer(StatusCode::ACCEPTED, placed.id, 2));
    }
    match placed.subscription.wait(deadline, app.mail_wait).await {
        outcome::State::Undecided => Ok(answer(StatusCode::ACCEPTED, placed.id, 2)),
        outcome::State::Deleted => {
            Err(Problem::new(StatusCode::GONE, "the order was deleted before it was decided").with_id(placed.id.number()))
        }
        outcome::State::Decided { outcome, .. } => decided(placed.id, outcome),
    }
}

fn decided(id: OrderId, outcome: Outcome) -> Result<Response, Problem> {
    match outcome {
        Outcome::Paid => Ok(answer(StatusCode::OK, id, 1)),
        Outcome::Undecided | Outcome::Unknown => Ok(answer(StatusCode::ACCEPTED, id, 2)),
        Outcome::Refused(Refusal::AccountNotFound) => {
            let problem = Problem::not_found("there is no account with this login; register it first. Nothing was charged");
            Err(Problem { field: Some("login".to_owned()), ..problem }.with_id(id.number()))
        }
        Outcome::Refused(_) => Ok(answer(StatusCode::BAD_REQUEST, id, 0)),
    }
}

fn answer(code: StatusCode, id: OrderId, status: u8) -> Response {
    let mut response = (code, Json(OrderAnswer { id: id.number(), status })).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/orders/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// An order as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderView {
    /// The order's number; null on orders that were made with kubectl.
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
    /// Why: `Processing`, `Paid`, `InsufficientFunds`, `AccountNotFound` …
    reason: String,
    /// The reason in words.
    message: String,
    /// Balance of the account right after the charge or at the refusal.
    #[schema(value_type = Option<f64>)]
    balance: Option<Balance>,
    /// How much of the charge was given back; null if nothing was.
    #[schema(value_type = Option<f64>)]
    refunded: Option<Balance>,
    /// Whether it was asked to be cancelled.
    cancel_requested: bool,
    /// The number of the attempt to charge, from 1.
    attempt: i32,
    /// How the customer's message stands: `Sent`, `Delivering`, `DeadLettered` …; null before there is one.
    message_state: Option<String>,
    /// When the order was placed (RFC 3339).
    created: Option<String>,
    /// What happened, oldest first: the first entry and the latest fifteen.
    history: Vec<HistoryEntry>,
}

#[derive(Debug, Serialize)]
struct Balance(#[serde(with = "json_number")] Money);

/// Something that happened to an order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryEntry {
    /// When (RFC 3339).
    time: String,
    /// What was done: `Charge`, `Cancel`, `Refund`, `Notify`, `Retry` …
    action: String,
    /// Why it went as it did.
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
            reason: succeeded.map_or(Reason::Processing.as_str(), |condition| &condition.reason).to_owned(),
            message: succeeded.map_or("Waiting for the payment.", |condition| &condition.message).to_owned(),
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
/// The Kubernetes API is asked, so that an order is found as soon as it is placed, and then the archive.
#[utoipa::path(
    get,
    path = "/orders/{id}",
    tag = "orders",
    params(("id" = i64, Path, description = "The order's number")),
    responses(
        (status = 200, description = "The order with its state, reason and history", body = OrderView),
        (status = 404, description = "No such order", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The order store does not answer; see Retry-After", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(
    State(app): State<AppState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<OrderView>, Problem> {
    let order = app.orders.get(read_id(id)?).await?;
    Ok(Json(OrderView::from(&order)))
}

pub(super) fn read_id(id: Result<Path<String>, PathRejection>) -> Result<OrderId, Problem> {
    let id = id.ok().and_then(|Path(id)| OrderId::parse(&id));
    id.ok_or_else(|| Problem::not_found("there is no order with this id: ids are positive integers"))
}

/// Which orders to list.
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
    /// Only orders placed then or later (RFC 3339, such as `2026-01-31T00:00:00Z`).
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Only orders placed earlier (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Orders on a page: 1 to 100, 20 if not given.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 100)]
    limit: Option<Limit<MAX_LIMIT>>,
    /// Where the page begins: `next_cursor` of the page before.
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
    /// Ask for the next page with this; null on the last one.
    next_cursor: Option<String>,
}

/// List orders, newest first.
///
/// Live and archived ones as one list. Those made with kubectl are among them, with a null `id`. One that was just placed
/// may be missing for a moment: asking for it by its number finds it. Orders placed within one second are in the order of
/// their UIDs.
#[utoipa::path(
    get,
    path = "/orders",
    tag = "orders",
    params(ListParams),
    responses(
        (status = 200, description = "A page of orders", body = OrderPage),
        (status = 422, description = "A parameter is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The archive does not answer; see Retry-After", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(app): State<AppState>, Query(params): Query<ListParams>) -> Result<Json<OrderPage>, Problem> {
    let ListParams { login, state, from, to, limit, cursor } = params;
    let filter = Filter { login, state: state.map(|state| state.as_str().to_owned()), from, to };
    let (orders, next) = app.orders.page(&filter, cursor.as_ref(), limit.map_or(DEFAULT_LIMIT, |Limit(limit)| limit).into()).await?;
    let items = orders.iter().map(|order| OrderView::from(&**order)).collect();
    Ok(Json(OrderPage { items, next_cursor: next.map(|cursor| cursor.encode()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_bodies_of_the_contract() {
        let body = serde_json::to_string(&OrderAnswer { id: 14, status: 1 }).unwrap();
        assert_eq!(body, r#"{"id":14,"status":1}"#);
    }
}
