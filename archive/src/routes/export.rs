//! The route that exports the archive's rows to an audit, page by page.

use axum::extract::{Query, State};
use orders_crds::{Money, money::json_number};
use orders_service::{Json, Problem, problem::ServiceCallProblems};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    resource::Resource,
    state::{Archive, Reader},
};
use crate::{entry::is_valid_column_value, store::Archived};

/// The maximum number of rows on a page.
const PAGE_SIZE: i64 = 1000;

/// The start of a page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AfterUid {
    /// The last `uid` of the previous page; empty for the first page.
    #[serde(default)]
    after: String,
}

/// An archived order, and the values that the archive derived from it.
#[derive(Serialize, ToSchema)]
pub(super) struct ExportedOrder {
    uid: String,
    namespace: String,
    name: String,
    /// The order's number; null for an order that was created with kubectl.
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
    /// The resource version of the order.
    revision: i64,
    /// When this revision was archived: microseconds since 1970-01-01 UTC.
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
/// The orders are sorted by UID, at most 1000 per page. An order that is archived during the export
/// may be missing. To miss no order, list the orders in Kubernetes first. Only the service accounts
/// of the operator, the api-server and the audit may call this.
#[utoipa::path(
    get,
    path = "/archive/export",
    tag = "export",
    params(AfterUid),
    responses(
        (status = 200, description = "A page of orders; the last page is empty", body = Vec<ExportedOrder>),
        (status = 422, description = "`after` is not a UID", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn export(
    _: Reader,
    State(archive): State<Archive>,
    Query(AfterUid { after }): Query<AfterUid>,
) -> Result<Json<Vec<ExportedOrder>>, Problem> {
    if !after.is_empty() && !is_valid_column_value(&after) {
        return Err(Problem::invalid("after", "after: must be the last `uid` of the previous page"));
    }
    let page = archive.store.export(&after, PAGE_SIZE).await?;
    page.into_iter().map(ExportedOrder::try_from).collect::<Result<_, _>>().map(Json)
}
