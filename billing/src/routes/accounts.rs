//! Routes that open, refill and show accounts.

use axum::{
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
    response::Response,
};
use orders_contracts::billing::{Account, OpenAccount, Refill};
use orders_crds::{Login, Money};
use orders_service::{IdempotencyKey, Json, Problem, problem::ServiceCallProblems};
use serde::Deserialize;

use super::{
    state::{ApiServer, Billing, Operator},
    values::{parse_login, require_positive, respond},
};
use crate::{
    error::LedgerError,
    ledger::{Kind, Movement, OpenedAccount, Outcome},
};

/// The validated query parameter `login`.
pub(super) struct LoginQuery(Login);

impl<S: Send + Sync> FromRequestParts<S> for LoginQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Query {
            login: String,
        }
        let query = axum::extract::Query::<Query>::from_request_parts(parts, state).await;
        let Query { login } = query.map_err(|_| Problem::invalid("login", "login: set it exactly once, as ?login=NAME"))?.0;
        parse_login(login).map(LoginQuery)
    }
}

/// Open an account.
///
/// The account's balance is zero. Only the service account of the api-server may call this.
#[utoipa::path(
    post,
    path = "/billing/register",
    tag = "accounts",
    params(
        ("login" = String, Query, description = "Login of the account"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated call with the key that opened the account returns the first response")
    ),
    responses(
        (status = 200, description = "Opened", body = Account),
        (status = 409, description = "An account with this login already exists; its balance is unchanged", body = Problem, content_type = "application/problem+json"),
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
    Ok(respond(Account { login, balance: Money::ZERO }, repeated))
}

/// Open an account if it does not exist.
///
/// A new account has a balance of zero. A repeated call changes nothing. Only the service account
/// of the operator may call this.
#[utoipa::path(
    put,
    path = "/billing/account/{login}",
    tag = "accounts",
    params(
        ("login" = String, Path, description = "Login of the account"),
        ("Idempotency-Key" = String, Header, description = "The customer's UID. It determines whether the account was opened for this customer: see `opened`")
    ),
    responses(
        (status = 200, description = "The account exists", body = OpenAccount),
        (status = 400, description = "The `Idempotency-Key` is missing", body = Problem, content_type = "application/problem+json"),
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
    let login = parse_login(login)?;
    let OpenedAccount { balance, is_opened_by_key } = billing.ledger.ensure_account(login.as_ref(), key.as_str()).await?;
    Ok(Json(OpenAccount { login, balance, opened: is_opened_by_key }))
}

/// Add money to an account.
///
/// Billing also records a refusal under the request's key: after a 404, register the login and refill
/// with a new key. A refusal without a key leaves nothing. Only the service account of the api-server may call this.
#[utoipa::path(
    post,
    path = "/billing/refill",
    tag = "accounts",
    params(("Idempotency-Key" = Option<String>, Header, description = "Each login has its own set of keys. Without a key, each call adds the amount")),
    request_body = Refill,
    responses(
        (status = 200, description = "The account, with the balance right after the refill", body = Account),
        (status = 404, description = "There is no account with this login", body = Problem, content_type = "application/problem+json"),
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
    let amount = require_positive(refill.balance)?;
    if key.is_none() {
        // Nobody can repeat a request without a key, so its refusal need not be recorded.
        let balance = billing.ledger.balance(refill.login.as_ref()).await?;
        if balance.minor() + amount.minor() > Money::MAX.minor() {
            return Err(LedgerError::BalanceLimit.into());
        }
    }
    let key = key.map_or_else(|| uuid::Uuid::new_v4().to_string(), |key| format!("{}/{}", refill.login, key.as_str()));
    let movement =
        Movement { kind: Kind::Refill, key: &key, login: refill.login.as_ref(), amount, charge_key: None, authorization: None };
    let recorded = billing.ledger.record(&movement).await?;
    match (recorded.outcome, recorded.balance) {
        (Outcome::Done, Some(balance)) => Ok(respond(Account { login: refill.login, balance }, recorded.repeated)),
        (Outcome::AccountNotFound, _) => Err(LedgerError::AccountNotFound.into()),
        (Outcome::BalanceLimit, _) => Err(LedgerError::BalanceLimit.into()),
        (Outcome::Done, None) | (Outcome::InsufficientFunds | Outcome::Closed | Outcome::AlreadyExists, _) => {
            Err(Problem::internal(&"a refill cannot have this outcome"))
        }
    }
}

/// Show a balance.
///
/// This call needs no token, because the public API shows balances to everyone.
#[utoipa::path(
    get,
    path = "/billing/account/{login}",
    tag = "accounts",
    params(("login" = String, Path, description = "Login of the account")),
    responses(
        (status = 200, description = "The account", body = Account),
        (status = 404, description = "There is no account with this login", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The login is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is overloaded or unavailable", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show_account(State(billing): State<Billing>, Path(login): Path<String>) -> Result<Json<Account>, Problem> {
    let login = parse_login(login)?;
    let balance = billing.ledger.balance(login.as_ref()).await?;
    Ok(Json(Account { login, balance }))
}
