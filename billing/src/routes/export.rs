//! Routes that export the ledger's rows to an audit, page by page.

use axum::extract::{Query, State};
use orders_contracts::billing::{ExportedAccount, ExportedTransaction, LedgerId, Summary};
use orders_service::{Json, Problem, problem::ServiceCallProblems};
use serde::Deserialize;
use utoipa::IntoParams;

use super::state::{Auditor, Billing, ChargeReader};

/// The maximum number of rows on a page.
const PAGE_SIZE: i64 = 1000;

/// The start of a page of transactions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AfterId {
    /// The last `id` of the previous page; 0 for the first page.
    #[serde(default)]
    after: i64,
}

/// The start of a page of accounts.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AfterLogin {
    /// The last `login` of the previous page; empty for the first page.
    #[serde(default)]
    after: String,
}

/// Show which ledger this is.
///
/// An operator compares the ID with that of the ledger that orders belong to, so that two ledgers never
/// charge the same order. Only the service accounts of the operator and the api-server may call this.
#[utoipa::path(
    get,
    path = "/billing/ledger",
    tag = "ledger",
    responses(
        (status = 200, description = "The ID of the ledger", body = LedgerId),
        ServiceCallProblems
    )
)]
pub(super) async fn show_ledger(_: ChargeReader, State(billing): State<Billing>) -> Result<Json<LedgerId>, Problem> {
    Ok(Json(LedgerId { id: billing.ledger.id().await?.to_owned() }))
}

/// List transactions.
///
/// The transactions are in the order in which billing recorded them, 1000 per page. Only the
/// service accounts of the operator and the audit may call this.
#[utoipa::path(
    get,
    path = "/billing/ledger/transactions",
    tag = "ledger",
    params(AfterId),
    responses(
        (status = 200, description = "A page of transactions; the last page is empty", body = Vec<ExportedTransaction>),
        ServiceCallProblems
    )
)]
pub(super) async fn list_transactions(
    _: Auditor,
    State(billing): State<Billing>,
    Query(AfterId { after }): Query<AfterId>,
) -> Result<Json<Vec<ExportedTransaction>>, Problem> {
    Ok(Json(billing.ledger.transactions(after, PAGE_SIZE).await?))
}

/// List accounts.
///
/// The accounts are in the order of their logins, 1000 per page. Each account has its stored
/// balance and the sum of its postings. Only the service accounts of the operator and the audit may
/// call this.
#[utoipa::path(
    get,
    path = "/billing/ledger/accounts",
    tag = "ledger",
    params(AfterLogin),
    responses(
        (status = 200, description = "A page of accounts; the last page is empty", body = Vec<ExportedAccount>),
        ServiceCallProblems
    )
)]
pub(super) async fn list_accounts(
    _: Auditor,
    State(billing): State<Billing>,
    Query(AfterLogin { after }): Query<AfterLogin>,
) -> Result<Json<Vec<ExportedAccount>>, Problem> {
    Ok(Json(billing.ledger.accounts(&after, PAGE_SIZE).await?))
}

/// Show the ledger's totals.
///
/// One SQL statement computes the totals. If the books balance, the sum of all postings is zero.
/// Only the service accounts of the operator and the audit may call this.
#[utoipa::path(
    get,
    path = "/billing/ledger/summary",
    tag = "ledger",
    responses(
        (status = 200, description = "The number of transactions, the number of postings and the sum of all postings", body = Summary),
        ServiceCallProblems
    )
)]
pub(super) async fn show_summary(_: Auditor, State(billing): State<Billing>) -> Result<Json<Summary>, Problem> {
    Ok(Json(billing.ledger.summary().await?))
}
