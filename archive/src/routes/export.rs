//! The archive's rows for an audit, page by page.

use axum::extract::{Query, State};
use orders_crds::{Money, money::json_number};
use orders_service::{Json, Problem, problem::ServiceCallProblems};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Archive, Reader, Resource};
use crate::{entry::is_column, store::Archived};

/// Rows on a page, at most.
const PAGE: i64 = 1000;

/// Where a page begins.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AfterUid {
    /// The last `uid` of the page before; empty for the first page.
    #[serde(default)]
    after: String,
}

/// An order and what was derived from it when it came.
#[derive(Serialize, ToSchema)]
pub(super) struct ExportedOrder {
    uid: String,
    namespace: String,
    name: String,
    /// The order's number; null on orders that were made with kubectl.
    id: Option<i64>,
    login: String,
    /// Amount of the order.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    amount: Money,
    /// Reason of the condition `Succeeded`.
    #[schema(example = "Paid")]
    state: String,
    /// When the order was created: microseconds since 1970-01-01 UTC.
    created_at: i64,
    /// The resource's version.
    revision: i64,
    /// When this revision was put into the archive: microseconds since 1970-01-01 UTC.
    archived_at: i64,
    resource: Resource,
}

impl TryFrom<Archived> for ExportedOrder {
    type Error = Problem;

    fn try_from(Archived { entry, archived_at }: Archived) -> Result<Self, Problem> {
        Ok(ExportedOrder {
            uid: entry.uid,
            namespace: entry.namespace,
            name: entry.name,
            id: entry.id,
            login: entry.login,
            amount: entry.amount,
            state: entry.state,
            created_at: entry.created_at,
            revision: entry.revision,
            archived_at,
            resource: entry.resource.try_into()?,
        })
    }
}

/// List all orders.
///
/// By UID, at most 1000 a page. An order that comes meanwhile may be missing: who wants all of them lists those in
/// Kubernetes first. For the accounts of the operator, the api-server and the audit.
#[utoipa::path(
    get,
    path = "/archive/export",
    tag = "export",
    params(AfterUid),
    responses(
        (status = 200, description = "A page; the last one is empty", body = Vec<ExportedOrder>),
        (status = 422, description = "`after` is no UID", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn export(
    _: Reader,
    State(archive): State<Archive>,
    Query(AfterUid { after }): Query<AfterUid>,
) -> Result<Json<Vec<ExportedOrder>>, Problem> {
    if !after.is_empty() && !is_column(&after) {
        return Err(Problem::invalid("after", "after: use the last `uid` of the page before"));
    }
    let page = archive.store.export(&after, PAGE).await?;
    page.into_iter().map(ExportedOrder::try_from).collect::<Result<_, _>>().map(Json)
}
