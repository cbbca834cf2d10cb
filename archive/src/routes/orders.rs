//! Orders: kept, and looked up.

use axum::extract::{Path, State};
use orders_contracts::archive::{Kept, Stored};
use orders_service::{Json, JsonList, Problem, problem::ServiceCallProblems};
use serde_json::Value;

use super::{Archive, Reader, Resource, Writer};
use crate::entry::{Entry, Refused};

/// Orders in a batch, at most.
const MAX_BATCH: usize = 500;

/// Keep an order.
///
/// Only an order that is decided is taken. Its history is added to what is kept of it. For the operator's account only.
#[utoipa::path(
    put,
    path = "/archive/orders/{uid}",
    tag = "orders",
    params(("uid" = String, Path, description = "UID of the order")),
    request_body(content = Resource, description = "The Order as Kubernetes has it, of at most 64 KiB without its managed fields"),
    responses(
        (status = 200, description = "Kept, in this revision or a later one", body = Kept),
        (status = 400, description = "Malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than 4 MiB", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "No order, not decided yet, too large, or of another UID", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn put(
    _: Writer,
    State(archive): State<Archive>,
    Path(uid): Path<String>,
    Json(resource): Json<Value>,
) -> Result<Json<Kept>, Problem> {
    let entry = Entry::read(resource)?;
    if entry.uid != uid {
        return Err(Refused::field("metadata.uid", "is not that of the path").into());
    }
    let revision = archive.store.put(&entry).await?;
    Ok(Json(Kept { uid, revision }))
}

/// Keep a batch of orders.
///
/// All of them or, after any error, none. Only orders that are decided are taken, and their histories are added to what is
/// kept of them. For the operator's account only.
#[utoipa::path(
    post,
    path = "/archive/orders",
    tag = "orders",
    request_body(content = Vec<Resource>, description = "Up to 500 Orders as Kubernetes has them, each of at most 64 KiB without its managed fields, together 4 MiB with them"),
    responses(
        (status = 200, description = "Kept, each in this revision or a later one", body = Stored),
        (status = 400, description = "Malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than 4 MiB", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Too many orders, or one is no order, not decided yet or too large: `field` begins with its index, as in `[3].metadata.uid`", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn put_all(
    _: Writer,
    State(archive): State<Archive>,
    JsonList(resources): JsonList<Value>,
) -> Result<Json<Stored>, Problem> {
    if resources.len() > MAX_BATCH {
        return Err(Refused { field: None, why: format!("send at most {MAX_BATCH} orders at once") }.into());
    }
    let read = |(index, resource)| Entry::read(resource).map_err(|refused| refused.at(index));
    let entries: Vec<Entry> = resources.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
    archive.store.put_all(&entries).await?;
    Ok(Json(Stored { stored: entries.len() }))
}

/// Show an order.
///
/// For the accounts of the operator, the api-server and the audit.
#[utoipa::path(
    get,
    path = "/archive/orders/{uid}",
    tag = "orders",
    params(("uid" = String, Path, description = "UID of the order")),
    responses(
        (status = 200, description = "The order", body = Resource),
        (status = 404, description = "No such order", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn show(_: Reader, State(archive): State<Archive>, Path(uid): Path<String>) -> Result<Json<Resource>, Problem> {
    let found = archive.store.find(&uid).await?;
    found.ok_or_else(|| Problem::not_found("no order with this UID is in the archive"))?.try_into().map(Json)
}

/// Show the newest order of a name.
///
/// Names are free again once the resource is gone, so that there may be older ones. For the accounts of the operator, the
/// api-server and the audit.
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
        (status = 404, description = "No such order", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn show_named(
    _: Reader,
    State(archive): State<Archive>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<Resource>, Problem> {
    let found = archive.store.find_named(&namespace, &name).await?;
    found.ok_or_else(|| Problem::not_found("no order of this name is in the archive"))?.try_into().map(Json)
}
