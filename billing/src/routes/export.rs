//! The ledger's rows for an audit, page by page.

use axum::extract::{Query, State};
use orders_contracts::billing::{ExportedAccount, ExportedTransaction, Summary};
use orders_service::{Json, Problem, problem::ServiceCallProblems};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Auditor, Billing};

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

/// List transactions.
///
/// In the order of their recording, 1000 a page. For the operator's account or the audit's.
#[utoipa::path(
    get,
    path = "/billing/ledger/transactions",
    tag = "ledger",
    params(AfterId),
    responses(
        (status = 200, description = "A page; the last one is empty", body = Vec<ExportedTransaction>),
        ServiceCallProblems
    )
)]
pub(super) async fn transactions(
    _: Auditor,
    State(billing): State<Billing>,
    Query(AfterId { after }): Query<AfterId>,
) -> Result<Json<Vec<ExportedTransaction>>, Problem> {
    Ok(Json(billing.ledger.transactions(after, PAGE).await?))
}

/// List accounts.
///
/// By login, 1000 a page: each one's kept balance beside the sum of its postings. For the operator's account or the audit's.
#[utoipa::path(
    get,
    path = "/billing/ledger/accounts",
    tag = "ledger",
    params(AfterLogin),
    responses(
        (status = 200, description = "A page; the last one is empty", body = Vec<ExportedAccount>),
        ServiceCallProblems
    )
)]
pub(super) async fn accounts(
    _: Auditor,
    State(billing): State<Billing>,
    Query(AfterLogin { after }): Query<AfterLogin>,
) -> Result<Json<Vec<ExportedAccount>>, Problem> {
    Ok(Json(billing.ledger.accounts(&after, PAGE).await?))
}

/// Sum up the ledger.
///
/// In one statement: the sum of all postings is zero if the books balance. For the operator's account or the audit's.
#[utoipa::path(
    get,
    path = "/billing/ledger/summary",
    tag = "ledger",
    responses(
        (status = 200, description = "The ledger in a few numbers", body = Summary),
        ServiceCallProblems
    )
)]
pub(super) async fn summary(_: Auditor, State(billing): State<Billing>) -> Result<Json<Summary>, Problem> {
    Ok(Json(billing.ledger.summary().await?))
}
