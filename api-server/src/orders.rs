//! Places and finds orders. A request creates one resource, however often it is repeated.

use std::{cmp::Reverse, collections::HashSet, sync::Arc, time::Duration};

use kube::{Api, api::PostParams, core::Status};
use orders_crds::{EMail, Login, Money, Order, OrderSpec};
use orders_service::{IdempotencyKey, Problem};
use tokio::time::Instant;

use crate::{
    archive::Archive,
    kube_call::{WriteFailure, call, write_problem},
    listing::{Cursor, Filter},
    order_cache::{OrderCache, OrderState, Subscription},
    order_id::{OrderId, OrderRef},
};

/// How long to try to create an order while the Kubernetes API does not respond.
const CREATE_TIMEOUT: Duration = Duration::from_secs(8);

/// The delay between two such attempts.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// How many numbers are tried if another customer's order has the number: a hash collision.
const MAX_PROBES: u8 = 4;

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

/// A placed order.
pub struct PlacedOrder {
    /// Its number.
    pub id: OrderId,
    /// The subscription to its states.
    pub subscription: Subscription,
    /// If an earlier request placed the order: its state, as this request has read it.
    pub earlier: Option<OrderState>,
}

impl PlacedOrder {
    /// Waits for the outcome as [`Subscription::wait`] does. The outcome of an earlier request is read:
    /// the watch may still show one from before a change that another replica requested.
    pub async fn wait(self, deadline: Instant, mail_wait: Duration) -> OrderState {
        match self.earlier {
            Some(state) => self.subscription.read_until_decided(state, deadline, mail_wait).await,
            None => self.subscription.wait(deadline, mail_wait).await,
        }
    }
}

/// The orders of one namespace.
#[derive(Clone)]
pub struct Orders {
    pub(crate) api: Api<Order>,
    /// The cache of the live orders, with subscriptions to their states.
    pub cache: OrderCache,
    archive: Option<Archive>,
    max_live: usize,
}

/// The result of an attempt to create an order.
enum CreateResult {
    Created,
    /// The order exists already, created by the same request.
    AlreadyExists(OrderState),
    /// The number belongs to another order.
    Conflict {
        is_same_login: bool,
    },
}

impl Orders {
    /// Starts to watch the orders of this namespace. Archived orders are read from the archive. No
    /// order is placed while there are `max_live` live orders.
    pub fn new(client: kube::Client, namespace: &str, archive: Option<Archive>, max_live: usize) -> Self {
        let api: Api<Order> = Api::namespaced(client, namespace);
        Orders { cache: OrderCache::start(api.clone(), namespace), api, archive, max_live }
    }

    /// Creates the order, or finds the order that an earlier request with the same key created.
    ///
    /// # Errors
    /// 422 if the key was used for another order; 403 if Kubernetes refuses the order; 503 if it was not
    /// placed; 504 if it is unknown whether the order exists. The problem carries its id.
    pub async fn place(&self, new: &NewOrder, key: Option<&IdempotencyKey>) -> Result<PlacedOrder, Problem> {
        for probe in 0..MAX_PROBES {
            let id = key.map_or_else(OrderId::random, |key| OrderId::of_key(&new.login, key, probe));
            let subscription = self.cache.subscribe(&id.resource_name());
            let created = async {
                // Without a key, the number is new, so the archive need not be read.
                match key {
                    Some(_) => match self.find_archived(id, new).await? {
                        Some(created) => Ok(created),
                        None => self.create(id, new).await,
                    },
                    None => self.create(id, new).await,
                }
            };
            match created.await.map_err(|problem| problem.with_id(id.number()))? {
                CreateResult::Created => return Ok(PlacedOrder { id, subscription, earlier: None }),
                CreateResult::AlreadyExists(state) => return Ok(PlacedOrder { id, subscription, earlier: Some(state) }),
                CreateResult::Conflict { is_same_login: true } if key.is_some() => {
                    let problem = Problem::invalid(
                        "Idempotency-Key",
                        "this Idempotency-Key was used for another order; its outcome is unchanged",
                    );
                    return Err(problem.with_id(id.number()));
                }
                CreateResult::Conflict { .. } => {}
            }
        }
        Err(Problem::unavailable("no free order number was found; no order was placed. Try again"))
    }

    /// Returns this order, live or archived.
    ///
    /// # Errors
    /// 404, or 503 if the Kubernetes API or the archive does not respond.
    pub async fn get(&self, order: &OrderRef) -> Result<Order, Problem> {
        if let Some(live) = self.get_live(order).await? {
            return Ok(live);
        }
        let archived = self.get_archived(order).await?;
        archived.ok_or_else(|| no_such_order(order))
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
        // The live orders first: an order that is archived and removed in between is then in both
        // lists.
        let mut orders = self.cache.page(filter, after, limit + 1);
        let mut has_more = orders.len() > limit;
        if let Some(archive) = &self.archive {
            let archived = archive.page(filter, after, limit).await?;
            has_more |= archived.next.is_some();
            // If an order is live, the live resource counts, not the archived one.
            let removed = archived.items.into_iter().filter(|order| !self.cache.is_live(&Cursor::of(order)));
            let listed: HashSet<Cursor> = orders.iter().map(|order| Cursor::of(order)).collect();
            orders.extend(removed.filter(|order| !listed.contains(&Cursor::of(order))).map(Arc::new));
            orders.sort_by_cached_key(|order| Reverse(Cursor::of(order)));
        }
        has_more |= orders.len() > limit;
        orders.truncate(limit);
        let next = orders.last().filter(|_| has_more).map(|order| Cursor::of(order));
        Ok((orders, next))
    }

    /// Returns this order, if it is live.
    pub(crate) async fn get_live(&self, order: &OrderRef) -> Result<Option<Order>, Problem> {
        call(self.api.get_opt(order.resource_name())).await.map_err(|error| error.read_problem())
    }

    /// Returns this order, if it is archived.
    pub(crate) async fn get_archived(&self, order: &OrderRef) -> Result<Option<Order>, Problem> {
        match &self.archive {
            Some(archive) => archive.get(order.resource_name()).await,
            None => Ok(None),
        }
    }

    /// Compares the request with the archived order of this number, which an earlier request may
    /// have created long ago. The operator keeps the resource for a while after it is archived, so
    /// that no second resource is created in between. (The cache cannot replace this check: an
    /// order in it may have been removed just now.) As long as the resource exists, it counts, and not
    /// the archived order: it may have changed since.
    async fn find_archived(&self, id: OrderId, new: &NewOrder) -> Result<Option<CreateResult>, Problem> {
        let reference = OrderRef::from(id);
        let Some(archived) = self.get_archived(&reference).await? else { return Ok(None) };
        let order = self.get_live(&reference).await?.unwrap_or(archived);
        Ok(Some(compare(&order, &spec(id, new))))
    }

    /// Creates the resource. While the Kubernetes API does not respond, the same request is
    /// repeated. The name ensures that only one resource is created.
    async fn create(&self, id: OrderId, new: &NewOrder) -> Result<CreateResult, Problem> {
        let order = Order::new(&id.resource_name(), spec(id, new));
        if self.cache.live_count() >= self.max_live && self.cache.get(&id.resource_name()).is_none() {
            metrics::counter!("orders_turned_away_total").increment(1);
            return Err(Problem::unavailable(
                "there are too many orders that the archive does not have yet; no order was placed. Try again later",
            ));
        }
        let params = PostParams::default();
        let deadline = Instant::now() + CREATE_TIMEOUT;
        let mut may_exist = false;
        loop {
            let failure = match call(self.api.create(&params, &order)).await {
                Ok(_) => return Ok(CreateResult::Created),
                Err(error) if error.status().is_some_and(Status::is_already_exists) => {
                    may_exist = true;
                    match call(self.api.get(&id.resource_name())).await {
                        Ok(existing) => return Ok(compare(&existing, &order.spec)),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let mut effect = failure.write_failure("order");
            may_exist |= effect == WriteFailure::Unknown;
            if may_exist && effect == WriteFailure::NothingDone {
                effect = WriteFailure::Unknown;
            }
            if matches!(effect, WriteFailure::Refused(_)) || Instant::now() >= deadline {
                let repeat = "Get the order by its id, or send the request again with the same Idempotency-Key";
                return Err(write_problem(effect, "order", &failure, repeat));
            }
            tracing::debug!(order = %id, error = %failure, "the order is not created yet; retrying");
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}

fn compare(existing: &Order, spec: &OrderSpec) -> CreateResult {
    // Fields that may have changed since do not make it another order.
    let OrderSpec { cancel_requested, ttl_seconds_after_finished, .. } = existing.spec;
    let spec = OrderSpec { cancel_requested, ttl_seconds_after_finished, ..spec.clone() };
    match existing.spec == spec {
        true => CreateResult::AlreadyExists(OrderState::of(existing)),
        false => CreateResult::Conflict { is_same_login: existing.spec.login == spec.login },
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

pub(crate) fn no_such_order(order: &OrderRef) -> Problem {
    order.add_to(Problem::not_found("there is no order with this id"))
}
