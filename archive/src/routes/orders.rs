//! Routes that archive orders and show archived orders.

use axum::extract::{Path, State};
use orders_contracts::archive::{ArchivedCount, ArchivedOrder};
use orders_service::{Json, JsonList, Problem, problem::ServiceCallProblems};
use serde_json::Value;

use super::{
    resource::Resource,
    state::{Archive, Reader, Writer},
};
use crate::entry::{Entry, InvalidResource};

/// The maximum number of orders in a batch.
const MAX_BATCH: usize = 500;

/// Archive an order.
///
/// The archive accepts only decided orders. It adds the history of the order to the stored history.
/// Only the service account of the operator may call this.
#[utoipa::path(
    put,
    path = "/archive/orders/{uid}",
    tag = "orders",
    params(("uid" = String, Path, description = "UID of the order")),
    request_body(content = Resource, description = "The Order resource as Kubernetes stores it, with at most 64 KiB without its managed fields"),
    responses(
        (status = 200, description = "The order is stored, in this revision or a later revision", body = ArchivedOrder),
        (status = 400, description = "Malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than 4 MiB", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The resource is not an order, is not decided yet, is too large, or has another UID than the path", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn put(
    _: Writer,
    State(archive): State<Archive>,
    Path(uid): Path<String>,
    Json(resource): Json<Value>,
) -> Result<Json<ArchivedOrder>, Problem> {
    let entry = Entry::from_resource(resource)?;
    if entry.uid != uid {
        return Err(InvalidResource::in_field("metadata.uid", "does not match the path").into());
    }
    let revision = archive.store.put(&entry).await?;
    Ok(Json(ArchivedOrder { uid, revision }))
}

/// Archive a batch of orders.
///
/// The archive stores all orders of the batch or, after any error, none. It accepts only decided
/// orders. It adds the history of each order to the stored history. Only the service account of the
/// operator may call this.
#[utoipa::path(
    post,
    path = "/archive/orders",
    tag = "orders",
    request_body(content = Vec<Resource>, description = "Up to 500 Order resources as Kubernetes stores them. Each has at most 64 KiB without its managed fields. Together, they have at most 4 MiB with their managed fields"),
    responses(
        (status = 200, description = "Each order is stored, in this revision or a later revision", body = ArchivedCount),
        (status = 400, description = "Malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than 4 MiB", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The batch has too many orders, or a resource is not an order, is not decided yet or is too large. `field` begins with the index of the resource, as in `[3].metadata.uid`", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn put_all(
    _: Writer,
    State(archive): State<Archive>,
    JsonList(resources): JsonList<Value>,
) -> Result<Json<ArchivedCount>, Problem> {
    if resources.len() > MAX_BATCH {
        return Err(InvalidResource { field: None, reason: format!("a batch has at most {MAX_BATCH} orders") }.into());
    }
    let read = |(index, resource)| Entry::from_resource(resource).map_err(|error| error.at_index(index));
    let entries: Vec<Entry> = resources.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
    archive.store.put_all(&entries).await?;
    Ok(Json(ArchivedCount { stored: entries.len() }))
}

/// Show an order.
///
/// Only the service accounts of the operator, the api-server and the audit may call this.
#[utoipa::path(
    get,
    path = "/archive/orders/{uid}",
    tag = "orders",
    params(("uid" = String, Path, description = "UID of the order")),
    responses(
        (status = 200, description = "The order", body = Resource),
        (status = 404, description = "The archive has no order with this UID", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn show(_: Reader, State(archive): State<Archive>, Path(uid): Path<String>) -> Result<Json<Resource>, Problem> {
    let found = archive.store.find(&uid).await?;
    found.ok_or_else(|| Problem::not_found("no order with this UID is in the archive"))?.try_into().map(Json)
}

/// Show the newest order with a name.
///
/// A name can be reused after its resource is removed, so the archive may have older orders with
/// the same name. Only the service accounts of the operator, the api-server and the audit may call
/// this.
#[utoipa::path(
    get,
    path = "/archive/namespaces/{namespace}/orders/{name}",
    tag = "orders",
    params(
        ("namespace" = String, Path, description = "Namespace of the order"),
        ("name" = String, Path, description = "Name of the order")
    ),
    responses(
        (status = 200, description = "The order", body = Resource),
        (status = 404, description = "The archive has no order with this name", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn show_named(
    _: Reader,
    State(archive): State<Archive>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<Resource>, Problem> {
    let found = archive.store.find_named(&namespace, &name).await?;
    found.ok_or_else(|| Problem::not_found("no order with this name is in the archive"))?.try_into().map(Json)
}
