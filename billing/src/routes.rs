//! The HTTP API of billing.

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
    routing::{get, post},
};
use orders_crds::{Login, Money, money::json_number};
use orders_service::{IdempotencyKey, Json, Problem, auth::Authenticator};
use serde::{Deserialize, Serialize};

use crate::{
    error::LedgerError,
    ledger::{Kind, Ledger, Movement, Outcome},
};

/// What the routes work with.
#[derive(Clone)]
pub struct Billing {
    /// The money's record.
    pub ledger: Ledger,
    /// Who calls.
    pub authenticator: Authenticator,
    /// Who may call what.
    pub callers: Arc<Callers>,
}

/// The accounts that may change something.
#[derive(Debug)]
pub struct Callers {
    /// May withdraw.
    pub operator: String,
    /// May register and refill.
    pub api_server: String,
}

/// An account as clients see it.
#[derive(Debug, Serialize)]
pub struct Account {
    /// Its login.
    pub login: Login,
    /// Its balance.
    #[serde(with = "json_number")]
    pub balance: Money,
}

/// The routes.
pub fn router(billing: Billing) -> Router {
    Router::new()
        .route("/billing/register", post(register))
        .route("/billing/refill", post(refill))
        .route("/billing/withdraw", post(withdraw))
        .route("/billing/account/{login}", get(account))
        .with_state(billing)
}

/// The operator calls. As the first of a handler's parameters it has nothing
/// of a stranger's request looked at.
struct Operator;

/// The api-server calls.
struct ApiServer;

impl FromRequestParts<Billing> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, billing: &Billing) -> Result<Self, Problem> {
        billing.authenticator.require(&parts.headers, &[&billing.callers.operator]).await.map(|()| Operator)
    }
}

impl FromRequestParts<Billing> for ApiServer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, billing: &Billing) -> Result<Self, Problem> {
        billing.authenticator.require(&parts.headers, &[&billing.callers.api_server]).await.map(|()| ApiServer)
    }
}

/// `?login=`, checked.
struct LoginQuery(Login);

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

fn read_login(login: String) -> Result<Login, Problem> {
    Login::try_from(login).map_err(|error| Problem::invalid("login", format!("login: {error}")))
}

async fn register(_: ApiServer, State(billing): State<Billing>, LoginQuery(login): LoginQuery) -> Result<Json<Account>, Problem> {
    let balance = billing.ledger.register(login.as_ref()).await?;
    Ok(Json(Account { login, balance }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refill {
    login: Login,
    /// The amount to add.
    #[serde(with = "json_number")]
    balance: Money,
}

async fn refill(
    _: ApiServer,
    State(billing): State<Billing>,
    key: Option<IdempotencyKey>,
    Json(refill): Json<Refill>,
) -> Result<Json<Account>, Problem> {
    let amount = positive(refill.balance)?;
    let key = key.map_or_else(|| uuid::Uuid::new_v4().to_string(), |key| format!("{}/{}", refill.login, key.as_str()));
    let movement = Movement { kind: Kind::Refill, key: &key, login: refill.login.as_ref(), amount };
    let recorded = billing.ledger.record(&movement).await?;
    match (recorded.outcome, recorded.balance) {
        (Outcome::Done, Some(balance)) => Ok(Json(Account { login: refill.login, balance })),
        (Outcome::AccountNotFound, _) => Err(LedgerError::AccountNotFound.into()),
        _ => Err(LedgerError::BalanceLimit.into()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Withdrawal {
    login: Login,
    /// The amount to charge.
    #[serde(with = "json_number")]
    balance: Money,
}

/// What became of a charge: refusals are answers too, with status 200.
#[derive(Serialize)]
struct Charge {
    login: Login,
    /// The balance right after the charge or at the refusal; null without an account.
    balance: Option<Balance>,
    key: String,
    #[serde(with = "json_number")]
    amount: Money,
    outcome: ChargeOutcome,
    /// Whether this key was decided by an earlier call.
    repeated: bool,
}

#[derive(Serialize)]
struct Balance(#[serde(with = "json_number")] Money);

#[derive(Serialize)]
enum ChargeOutcome {
    Charged,
    InsufficientFunds,
    AccountNotFound,
}

async fn withdraw(
    _: Operator,
    State(billing): State<Billing>,
    key: IdempotencyKey,
    Json(withdrawal): Json<Withdrawal>,
) -> Result<Json<Charge>, Problem> {
    let amount = positive(withdrawal.balance)?;
    let movement = Movement { kind: Kind::Charge, key: key.as_str(), login: withdrawal.login.as_ref(), amount };
    let recorded = billing.ledger.record(&movement).await?;
    let outcome = match recorded.outcome {
        Outcome::Done => ChargeOutcome::Charged,
        Outcome::InsufficientFunds => ChargeOutcome::InsufficientFunds,
        Outcome::AccountNotFound => ChargeOutcome::AccountNotFound,
        Outcome::BalanceLimit => return Err(Problem::internal(&"a charge cannot raise a balance")),
    };
    Ok(Json(Charge {
        balance: recorded.balance.map(Balance),
        key: key.as_str().to_owned(),
        login: withdrawal.login,
        amount,
        outcome,
        repeated: recorded.repeated,
    }))
}

async fn account(State(billing): State<Billing>, Path(login): Path<String>) -> Result<Json<Account>, Problem> {
    let login = read_login(login)?;
    let balance = billing.ledger.balance(login.as_ref()).await?;
    Ok(Json(Account { login, balance }))
}

fn positive(amount: Money) -> Result<Money, Problem> {
    amount.require_positive().map_err(|error| Problem::invalid("balance", format!("balance: {error}")))
}
