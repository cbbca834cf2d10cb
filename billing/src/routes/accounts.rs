//! Accounts: opened, refilled, looked at.

use axum::{
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
    response::Response,
};
use orders_contracts::billing::{Account, OpenAccount, Refill};
use orders_crds::{Login, Money};
use orders_service::{IdempotencyKey, Json, Problem, problem::ServiceCallProblems};
use serde::Deserialize;

use super::{ApiServer, Billing, Operator, answer, positive, read_login};
use crate::{
    error::LedgerError,
    ledger::{Kind, Movement, Opened, Outcome},
};

/// `?login=`, checked.
pub(super) struct LoginQuery(Login);

impl<S: Send + Sync> FromRequestParts<S> for LoginQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Query {
            login: String,
        }
        let query = axum::extract::Query::<Query>::from_request_parts(parts, state).await;
        let Query { login } = query.map_err(|_| Problem::invalid("login", "login: give it once, as ?login=NAME"))?.0;
        read_login(login).map(LoginQuery)
    }
}

/// Open an account.
///
/// Its balance is zero. For the api-server's account only.
#[utoipa::path(
    post,
    path = "/billing/register",
    tag = "accounts",
    params(
        ("login" = String, Query, description = "Login of the account"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeat with the key that opened the account is answered as at first")
    ),
    responses(
        (status = 200, description = "Opened", body = Account),
        (status = 409, description = "Registered already; the balance is unchanged", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The login is invalid", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn register(
    _: ApiServer,
    State(billing): State<Billing>,
    key: Option<IdempotencyKey>,
    LoginQuery(login): LoginQuery,
) -> Result<Response, Problem> {
    let repeated = billing.ledger.register(login.as_ref(), key.as_ref().map(IdempotencyKey::as_str)).await?;
    Ok(answer(Account { login, balance: Money::ZERO }, repeated))
}

/// Open an account unless there is one.
///
/// Opened with a balance of zero if there was none. Repeating it changes nothing. For the operator's account only.
#[utoipa::path(
    put,
    path = "/billing/account/{login}",
    tag = "accounts",
    params(
        ("login" = String, Path, description = "Login of the account"),
        ("Idempotency-Key" = String, Header, description = "The customer's UID: tells whether the account was opened for this customer")
    ),
    responses(
        (status = 200, description = "The account exists", body = OpenAccount),
        (status = 400, description = "There is no Idempotency-Key", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The login is invalid", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn open(
    _: Operator,
    State(billing): State<Billing>,
    key: IdempotencyKey,
    Path(login): Path<String>,
) -> Result<Json<OpenAccount>, Problem> {
    let login = read_login(login)?;
    let Opened { balance, by_key } = billing.ledger.open(login.as_ref(), key.as_str()).await?;
    Ok(Json(OpenAccount { login, balance, opened: by_key }))
}

/// Add to a balance.
///
/// A refusal is recorded under its key as well: after a 404, register the login and refill with a new key.
/// For the api-server's account only.
#[utoipa::path(
    post,
    path = "/billing/refill",
    tag = "accounts",
    params(("Idempotency-Key" = Option<String>, Header, description = "One set of keys a login; without one each call adds")),
    request_body = Refill,
    responses(
        (status = 200, description = "The balance right after", body = Account),
        (status = 404, description = "No such account", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is invalid, the balance would be larger than 999999999999.99, or the key was used for another refill", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn refill(
    _: ApiServer,
    State(billing): State<Billing>,
    key: Option<IdempotencyKey>,
    Json(refill): Json<Refill>,
) -> Result<Response, Problem> {
    let amount = positive(refill.balance)?;
    let key = key.map_or_else(|| uuid::Uuid::new_v4().to_string(), |key| format!("{}/{}", refill.login, key.as_str()));
    let movement = Movement { kind: Kind::Refill, key: &key, login: refill.login.as_ref(), amount, charge_key: None };
    let recorded = billing.ledger.record(&movement).await?;
    match (recorded.outcome, recorded.balance) {
        (Outcome::Done, Some(balance)) => Ok(answer(Account { login: refill.login, balance }, recorded.repeated)),
        (Outcome::AccountNotFound, _) => Err(LedgerError::AccountNotFound.into()),
        _ => Err(LedgerError::BalanceLimit.into()),
    }
}

/// Show a balance.
///
/// Needs no token: the public API shows it to everyone.
#[utoipa::path(
    get,
    path = "/billing/account/{login}",
    tag = "accounts",
    params(("login" = String, Path, description = "Login of the account")),
    responses(
        (status = 200, description = "The account", body = Account),
        (status = 404, description = "No such account", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The login is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is busy or away", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn account(State(billing): State<Billing>, Path(login): Path<String>) -> Result<Json<Account>, Problem> {
    let login = read_login(login)?;
    let balance = billing.ledger.balance(login.as_ref()).await?;
    Ok(Json(Account { login, balance }))
}
