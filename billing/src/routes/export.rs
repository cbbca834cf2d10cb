//! The ledger's rows for an audit, page by page.

use axum::extract::{Query, State};
use orders_crds::{Money, money::json_number};
use orders_service::{Json, Problem, problem::ServiceCallProblems};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Auditor, Billing};
use crate::ledger::{ExportedAccount, ExportedPosting, ExportedTransaction};

/// Rows on a page, at most.
const PAGE: i64 = 1000;

/// Where a page of transactions begins.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AfterId {
    /// The last `id` of the page before; 0 for the first page.
    #[serde(default)]
    after: i64,
}

/// Where a page of accounts begins.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AfterLogin {
    /// The last `login` of the page before; empty for the first page.
    #[serde(default)]
    after: String,
}

/// A transaction with its postings.
#[derive(Serialize, ToSchema)]
pub(super) struct Transaction {
    id: i64,
    /// `refill`, `charge` or `refund`.
    kind: String,
    key: String,
    /// Of a refund: the charge's key.
    charge_key: Option<String>,
    login: String,
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    amount: Money,
    /// `done`, `insufficient_funds`, `account_not_found`, `balance_limit` or `closed`.
    outcome: String,
    postings: Vec<Posting>,
}

/// One leg of a transaction.
#[derive(Serialize, ToSchema)]
pub(super) struct Posting {
    /// `customer:LOGIN`, `cash` or `revenue`.
    account: String,
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    amount: Money,
}

/// An account: its balance as kept, and as its postings have it.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditedAccount {
    login: String,
    /// The kept balance.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    balance: Money,
    /// The sum of the account's postings.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    posted: Money,
}

/// The whole ledger in a few numbers.
#[derive(Serialize, ToSchema)]
pub(super) struct LedgerSummary {
    transactions: i64,
    postings: i64,
    /// The sum of all postings: zero if the books balance.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    sum: Money,
}

impl From<ExportedTransaction> for Transaction {
    fn from(transaction: ExportedTransaction) -> Self {
        let posting = |ExportedPosting { account, amount }| Posting { account, amount };
        Transaction {
            id: transaction.id,
            kind: transaction.kind,
            key: transaction.key,
            charge_key: transaction.charge_key,
            login: transaction.login,
            amount: transaction.amount,
            outcome: transaction.outcome,
            postings: transaction.postings.into_iter().map(posting).collect(),
        }
    }
}

/// List transactions in the order of their recording, 1000 a page.
#[utoipa::path(
    get,
    path = "/billing/ledger/transactions",
    tag = "ledger",
    params(AfterId),
    responses(
        (status = 200, description = "A page; the last one is empty", body = Vec<Transaction>),
        ServiceCallProblems
    )
)]
pub(super) async fn transactions(
    _: Auditor,
    State(billing): State<Billing>,
    Query(AfterId { after }): Query<AfterId>,
) -> Result<Json<Vec<Transaction>>, Problem> {
    let page = billing.ledger.transactions(after, PAGE).await?;
    Ok(Json(page.into_iter().map(Transaction::from).collect()))
}

/// List accounts by login, 1000 a page.
#[utoipa::path(
    get,
    path = "/billing/ledger/accounts",
    tag = "ledger",
    params(AfterLogin),
    responses(
        (status = 200, description = "A page; the last one is empty", body = Vec<AuditedAccount>),
        ServiceCallProblems
    )
)]
pub(super) async fn accounts(
    _: Auditor,
    State(billing): State<Billing>,
    Query(AfterLogin { after }): Query<AfterLogin>,
) -> Result<Json<Vec<AuditedAccount>>, Problem> {
    let page = billing.ledger.accounts(&after, PAGE).await?;
    let account = |ExportedAccount { login, balance, posted }| AuditedAccount { login, balance, posted };
    Ok(Json(page.into_iter().map(account).collect()))
}

/// Sum up the ledger.
#[utoipa::path(
    get,
    path = "/billing/ledger/summary",
    tag = "ledger",
    responses(
        (status = 200, description = "The ledger in a few numbers", body = LedgerSummary),
        ServiceCallProblems
    )
)]
pub(super) async fn summary(_: Auditor, State(billing): State<Billing>) -> Result<Json<LedgerSummary>, Problem> {
    let summary = billing.ledger.summary().await?;
    Ok(Json(LedgerSummary {
        transactions: summary.transactions,
        postings: summary.postings,
        sum: Money::from_minor(summary.sum),
    }))
}
