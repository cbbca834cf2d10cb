//! Placing orders: one resource a request, however often the request comes.

use std::time::Duration;

use axum::http::StatusCode;
use kube::{Api, api::PostParams};
use orders_crds::{EMail, Login, Money, Order, OrderSpec};
use orders_service::{IdempotencyKey, Problem};
use tokio::time::Instant;

use crate::{
    order_id::OrderId,
    outcome::{Outcomes, State, Subscription},
};

/// How long one call to the API server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// How long to try to create an order while the API server does not answer.
const PLACING_TIMEOUT: Duration = Duration::from_secs(8);

/// Pause between two such tries.
const PAUSE: Duration = Duration::from_millis(200);

/// Numbers tried if one is taken by somebody else's order: a hash collision.
const PROBES: u8 = 4;

/// A valid request for an order.
#[derive(Clone, Debug)]
pub struct NewOrder {
    /// The account to charge.
    pub login: Login,
    /// Where to tell the outcome.
    pub email: EMail,
    /// The cart it was made from; 0 to 2^53−1.
    pub cart_id: i64,
    /// How much to charge; greater than zero.
    pub amount: Money,
}

/// An order that exists, and a registration for its outcome.
pub struct Placed {
    /// Its number.
    pub id: OrderId,
    /// News of it.
    pub subscription: Subscription,
}

/// Orders in one namespace.
#[derive(Clone)]
pub struct Orders {
    api: Api<Order>,
    /// What becomes of them.
    pub outcomes: Outcomes,
}

enum Created {
    New,
    /// It was there, made by the same request.
    Same(State),
    /// The number belongs to another order.
    Taken {
        same_login: bool,
    },
}

impl Orders {
    /// The orders of this namespace, watched from now on.
    pub fn new(api: Api<Order>) -> Self {
        Orders { outcomes: Outcomes::watch(api.clone()), api }
    }

    /// Creates the order, or finds the one that the same key made before.
    ///
    /// # Errors
    /// 422 if the key was used for another order; 503 if the API server does
    /// not answer: then it is not known whether the order exists, and the
    /// problem carries its id.
    pub async fn place(&self, new: &NewOrder, key: Option<&IdempotencyKey>) -> Result<Placed, Problem> {
        for probe in 0..PROBES {
            let id = key.map_or_else(OrderId::random, |key| OrderId::of_key(&new.login, key, probe));
            let subscription = self.outcomes.subscribe(&id.resource_name());
            match self.create(id, new).await.map_err(|problem| problem.with_id(id.number()))? {
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

    /// An order by its number.
    ///
    /// # Errors
    /// 404, or 503 if the API server does not answer.
    pub async fn get(&self, id: OrderId) -> Result<Order, Problem> {
        match tokio::time::timeout(CALL_TIMEOUT, self.api.get_opt(&id.resource_name())).await {
            Ok(Ok(Some(order))) => Ok(order),
            Ok(Ok(None)) => Err(Problem::not_found("there is no order with this id").with_id(id.number())),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(timeout) => Err(unavailable(&timeout)),
        }
    }

    /// Creates the resource. While the API server does not answer, the same one
    /// is tried again: its name makes it come into being once.
    async fn create(&self, id: OrderId, new: &NewOrder) -> Result<Created, Problem> {
        let order = Order::new(&id.resource_name(), spec(id, new));
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
        Ok(match existing.spec == *spec {
            true => Created::Same(State::of(&existing)),
            false => Created::Taken { same_login: existing.spec.login == spec.login },
        })
    }
}

fn spec(id: OrderId, new: &NewOrder) -> OrderSpec {
    OrderSpec {
        id: Some(id.number()),
        login: new.login.to_string(),
        email: new.email.to_string(),
        cart_id: new.cart_id,
        amount: new.amount.to_string(),
    }
}

fn refused_at_admission(status: &kube::core::Status) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the API server refused the order: {}", status.message))
}

fn unavailable(cause: &dyn std::fmt::Display) -> Problem {
    tracing::warn!(%cause, "the API server does not answer");
    Problem::unavailable(
        "the order store does not answer now; whether the order was placed is not known. \
         Ask for it by its id, or send the request again with the same Idempotency-Key",
    )
}
