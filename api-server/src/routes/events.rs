//! `/orders/{id}/events`: streams the states of an order as Server-Sent Events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, stream};
use orders_crds::{Order, OrderStatus, Outcome};
use orders_service::Problem;
use sha2::{Digest, Sha256};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    orders::{OrderView, read_id},
    state::AppState,
};
use crate::{order_cache::Subscription, order_id::OrderRef};

/// The maximum number of concurrent streams.
pub const MAX_STREAMS: usize = 1000;

/// The maximum duration of one stream. Clients reconnect by themselves.
const MAX_DURATION: Duration = Duration::from_secs(300);

/// After this time without a change from the watch, a stream reads the order itself. A thousand
/// streams may do so, so the interval is long: normally, the watch shows the changes.
const POLL_INTERVAL: Duration = Duration::from_secs(15);

/// The state of one stream.
struct EventStream {
    app: AppState,
    id: OrderRef,
    subscription: Subscription,
    /// The `id` of the last event that the client received.
    last_event_id: String,
    deadline: Instant,
    _permit: OwnedSemaphorePermit,
}

/// Follow an order.
///
/// Sends Server-Sent Events of type `order`: the order at once, and again whenever it changes. The
/// stream ends when the order is finished: it is decided, and its message is sent or given up. The
/// data of each event is the order as `GET /orders/{id}` shows it. To continue a stream, a client
/// sends the `id` of the last event as `Last-Event-ID`. The changes in between are in `history`.
#[utoipa::path(
    get,
    path = "/orders/{id}/events",
    tag = "orders",
    params(
        ("id" = String, Path, description = "The order's number, or the name of its resource"),
        ("Last-Event-ID" = Option<String>, Header, description = "`id` of the last event that was received")
    ),
    responses(
        (status = 200, description = "The order, whenever it changes", body = String, content_type = "text/event-stream"),
        (status = 404, description = "No such order", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The order store does not respond, or too many clients follow orders already; see Retry-After", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn events(
    State(app): State<AppState>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let id = read_id(id)?;
    let permit = app.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::unavailable("too many clients follow orders already; try again later"))?;
    // Subscribe before the order is read, so that no change in between is missed.
    let subscription = app.orders.cache.subscribe(id.resource_name());
    app.orders.get(&id).await?;
    let last_event_id = headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let events = EventStream { app, id, subscription, last_event_id, deadline: Instant::now() + MAX_DURATION, _permit: permit };
    Ok(Sse::new(stream::unfold(Some(events), next_event)).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

/// Returns the next event, and the state of the stream if the order is not finished.
async fn next_event(events: Option<EventStream>) -> Option<(Result<Event, Infallible>, Option<EventStream>)> {
    let mut events = events?;
    let shutdown = events.app.shutdown.clone();
    loop {
        if events.deadline <= Instant::now() || shutdown.is_requested() {
            return None;
        }
        // If the order store does not respond now, it may respond later. The client waits
        // meanwhile.
        if let Ok(order) = events.app.orders.get(&events.id).await {
            let data = serde_json::to_string(&OrderView::from(&order)).unwrap_or_default();
            let (event_id, is_finished) = (digest(&data), is_finished(&order));
            if event_id != events.last_event_id {
                events.last_event_id = event_id.clone();
                let event = Event::default().event("order").id(event_id).data(data);
                return Some((Ok(event), (!is_finished).then_some(events)));
            }
            if is_finished {
                return None;
            }
        }
        tokio::select! {
            () = events.subscription.changed(POLL_INTERVAL) => {}
            () = shutdown.clone().requested() => return None,
        }
    }
}

/// Identifies the data of an event. (The version of the resource also counts changes that the data
/// does not show.)
fn digest(data: &str) -> String {
    Sha256::digest(data)[..12].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the order is decided, and its message is sent or given up. An order whose requested
/// cancellation is not complete is not finished.
fn is_finished(order: &Order) -> bool {
    let status: OrderStatus = order.status.clone().unwrap_or_default();
    let needs_refund = order.spec.cancel_requested == Some(true) && status.outcome() == Outcome::Paid;
    !status.is_charge_open() && status.is_notification_final() && !needs_refund
}
