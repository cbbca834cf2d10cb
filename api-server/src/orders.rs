//! Places and finds orders. A request creates one resource, however often it is repeated.

use std::{cmp::Reverse, collections::HashSet, sync::Arc, time::Duration};

use axum::http::StatusCode;
use kube::{Api, api::PostParams};
use orders_crds::{EMail, Login, Money, Order, OrderSpec};
use orders_service::{IdempotencyKey, Problem};
use tokio::time::Instant;

use crate::{
    archive::Archive,
    listing::{Cursor, Filter},
    order_id::OrderId,
    outcome::{Outcomes, State, Subscription},
};

/// How long one call to the API server may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// How long to try to create an order while the API server does not respond.
const PLACING_TIMEOUT: Duration = Duration::from_secs(8);

/// The delay between two such attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// How many numbers are tried if another customer's order has the number: a hash collision.
const PROBES: u8 = 4;

/// A valid request for an order.
#[derive(Clone, Debug)]
pub struct NewOrder {
    /// The account to charge.
    pub login: Login,
    /// The address at which the customer is notified of the outcome.
    pub email: EMail,
    /// The number of the cart: 0 to 2^53−1.
    pub cart_id: i64,
    /// The amount to charge: greater than zero.
    pub amount: Money,
    /// The number of seconds within which the charge must begin: 1 to 31536000.
    pub deadline_seconds: Option<i64>,
}

/// An order that exists, and a subscription to its states.
pub struct Placed {
    /// Its number.
    pub id: OrderId,
    /// The subscription to its states.
    pub subscription: Subscription,
}

/// The orders of one namespace.
#[derive(Clone)]
pub struct Orders {
    pub(crate) api: Api<Order>,
    /// The watch of the orders and their outcomes.
    pub outcomes: Outcomes,
    archive: Option<Archive>,
    max_live: usize,
}

enum Created {
    New,
    /// The order exists already, created by the same request.
    Same(State),
    /// The number belongs to another order.
    Taken {
        same_login: bool,
    },
}

impl Orders {
    /// Starts to watch the orders of this namespace. Archived orders are read from the archive. No
    /// order is placed while there are `max_live` live orders, which have not left for the archive.
    pub fn new(client: kube::Client, namespace: &str, archive: Option<Archive>, max_live: usize) -> Self {
        let api: Api<Order> = Api::namespaced(client, namespace);
        Orders { outcomes: Outcomes::watch(api.clone(), namespace), api, archive, max_live }
    }

    /// Creates the order, or finds the order that an earlier request with the same key created.
    ///
    /// # Errors
    /// 422 if the key was used for another order; 503 if the API server does not respond. Whether
    /// the order exists is then not known, and the problem carries its id.
    pub async fn place(&self, new: &NewOrder, key: Option<&IdempotencyKey>) -> Result<Placed, Problem> {
        for probe in 0..PROBES {
            let id = key.map_or_else(OrderId::random, |key| OrderId::of_key(&new.login, key, probe));
            let subscription = self.outcomes.subscribe(&id.resource_name());
            let created = async {
                // Without a key, the number is new, so the archive need not be read.
                match key {
                    Some(_) => match self.in_archive(id, new).await? {
                        Some(created) => Ok(created),
                        None => self.create(id, new).await,
                    },
                    None => self.create(id, new).await,
                }
            };
            match created.await.map_err(|problem| problem.with_id(id.number()))? {
                Created::New => return Ok(Placed { id, subscription }),
                Created::Same(state) => {
                    subscription.learned(state);
                    return Ok(Placed { id, subscription });
                }
                Created::Taken { same_login: true } if key.is_some() => {
                    let problem = Problem::invalid(
                        "Idempotency-Key",
                        "this Idempotency-Key was used for another order; its outcome is unchanged",
                    );
                    return Err(problem.with_id(id.number()));
                }
                Created::Taken { .. } => {}
            }
        }
        Err(Problem::unavailable("no free order number was found; try again"))
    }

    /// Returns the order with this number, live or archived.
    ///
    /// # Errors
    /// 404, or 503 if the API server or the archive does not respond.
    pub async fn get(&self, id: OrderId) -> Result<Order, Problem> {
        if let Some(order) = self.live(id).await? {
            return Ok(order);
        }
        let archived = self.archived(id).await?;
        archived.ok_or_else(|| no_such_order(id))
    }

    /// Returns a page of live and archived orders as one list, newest first, and the cursor of the
    /// next page, if there is one.
    ///
    /// # Errors
    /// 503 if the archive does not respond: the list would be incomplete.
    pub async fn page(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<(Vec<Arc<Order>>, Option<Cursor>), Problem> {
        // The live orders first: an order that leaves for the archive in between is then in both
        // lists.
        let mut orders = self.outcomes.page(filter, after, limit + 1);
        let mut more = orders.len() > limit;
        if let Some(archive) = &self.archive {
            let archived = archive.page(filter, after, limit).await?;
            more |= archived.next.is_some();
            // If an order is live, the live resource counts, not the archived one.
            let gone = archived.items.into_iter().filter(|order| !self.outcomes.is_live(&Cursor::of(order)));
            let shown: HashSet<Cursor> = orders.iter().map(|order| Cursor::of(order)).collect();
            orders.extend(gone.filter(|order| !shown.contains(&Cursor::of(order))).map(Arc::new));
            orders.sort_by_cached_key(|order| Reverse(Cursor::of(order)));
        }
        more |= orders.len() > limit;
        orders.truncate(limit);
        let next = orders.last().filter(|_| more).map(|order| Cursor::of(order));
        Ok((orders, next))
    }

    /// Returns the live order with this number.
    pub(crate) async fn live(&self, id: OrderId) -> Result<Option<Order>, Problem> {
        match tokio::time::timeout(CALL_TIMEOUT, self.api.get_opt(&id.resource_name())).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(timeout) => Err(unavailable(&timeout)),
        }
    }

    /// Returns the archived order with this number.
    pub(crate) async fn archived(&self, id: OrderId) -> Result<Option<Order>, Problem> {
        match &self.archive {
            Some(archive) => archive.named(&id.resource_name()).await,
            None => Ok(None),
        }
    }

    /// Compares the request with the archived order of this number, which an earlier request may
    /// have created long ago. The operator keeps the resource for a while after it is archived, so
    /// that no second resource is created in between. (The watch cannot replace this check: an
    /// order that it has shown may have been removed just now.)
    async fn in_archive(&self, id: OrderId, new: &NewOrder) -> Result<Option<Created>, Problem> {
        Ok(self.archived(id).await?.map(|order| compare(&order, &spec(id, new))))
    }

    /// Creates the resource. While the API server does not respond, the same request is repeated.
    /// The name ensures that only one resource is created.
    async fn create(&self, id: OrderId, new: &NewOrder) -> Result<Created, Problem> {
        let order = Order::new(&id.resource_name(), spec(id, new));
        if self.outcomes.live() >= self.max_live && self.outcomes.seen(&id.resource_name()).is_none() {
            metrics::counter!("orders_turned_away_total").increment(1);
            return Err(Problem::unavailable(
                "there are too many orders that the archive does not have yet; nothing was placed. Try again later",
            ));
        }
        let params = PostParams::default();
        let deadline = Instant::now() + PLACING_TIMEOUT;
        loop {
            let failure: Box<dyn std::error::Error + Send + Sync> =
                match tokio::time::timeout(CALL_TIMEOUT, self.api.create(&params, &order)).await {
                    Ok(Ok(_)) => return Ok(Created::New),
                    Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => {
                        match self.compare(id, &order.spec).await {
                            Ok(created) => return Ok(created),
                            Err(failure) => failure,
                        }
                    }
                    Ok(Err(kube::Error::Api(status))) if status.is_invalid() => return Err(refused_at_admission(&status)),
                    Ok(Err(error)) => error.into(),
                    Err(timeout) => timeout.into(),
                };
            if Instant::now() >= deadline {
                return Err(unavailable(&*failure));
            }
            tracing::debug!(order = %id, error = %failure, "order not created yet; trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn compare(&self, id: OrderId, spec: &OrderSpec) -> Result<Created, Box<dyn std::error::Error + Send + Sync>> {
        let existing = tokio::time::timeout(CALL_TIMEOUT, self.api.get(&id.resource_name())).await??;
        Ok(compare(&existing, spec))
    }
}

fn compare(existing: &Order, spec: &OrderSpec) -> Created {
    // Fields that may have changed since do not make it another order.
    let OrderSpec { cancel_requested, ttl_seconds_after_finished, .. } = existing.spec;
    let spec = OrderSpec { cancel_requested, ttl_seconds_after_finished, ..spec.clone() };
    match existing.spec == spec {
        true => Created::Same(State::of(existing)),
        false => Created::Taken { same_login: existing.spec.login == spec.login },
    }
}

fn spec(id: OrderId, new: &NewOrder) -> OrderSpec {
    OrderSpec {
        id: Some(id.number()),
        login: new.login.to_string(),
        email: new.email.to_string(),
        cart_id: new.cart_id,
        amount: new.amount.to_string(),
        deadline_seconds: new.deadline_seconds,
        ..OrderSpec::default()
    }
}

fn refused_at_admission(status: &kube::core::Status) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the API server refused the order: {}", status.message))
}

pub(crate) fn no_such_order(id: OrderId) -> Problem {
    Problem::not_found("there is no order with this id").with_id(id.number())
}

pub(crate) fn unavailable(cause: &dyn std::fmt::Display) -> Problem {
    tracing::warn!(%cause, "the API server does not answer");
    Problem::unavailable(
        "the order store does not answer now; whether the order was placed is not known. \
         Ask for it by its id, or send the request again with the same Idempotency-Key",
    )
}
