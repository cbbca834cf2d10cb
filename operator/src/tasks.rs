//! The tasks of the leader: the controllers, the retention of orders and the receipt of replies.

use std::{future::pending, sync::Arc};

use kube::{Api, runtime::reflector};
use orders_service::shutdown::Shutdown;

use crate::{
    claims::{Claims, Ledgers},
    customer::{self, context::Customers},
    order::{context::Context, controller, retention::Retention, settlement_check::SettlementCheck},
    ports::{interaction::receive, nats::Listener},
};

/// The tasks of the leader, and their parameters.
pub struct Tasks {
    /// The dependencies of a pass over an order.
    pub context: Arc<Context>,
    /// Archives, captures and removes finished orders.
    pub retention: Retention,
    /// Settles charges whose orders no longer exist.
    pub settlement_check: SettlementCheck,
    /// Which namespaces are this operator's.
    pub ledgers: Ledgers,
    /// Reconciles the customers.
    pub customers: Arc<Customers>,
    /// Receives the replies of billing and notify. `None` in the style without a broker.
    pub listener: Option<Listener>,
    /// The namespace of the release.
    pub home: String,
    /// The namespace of the orders and customers; `None` for all.
    pub namespace: Option<String>,
    /// The maximum number of orders reconciled at the same time.
    pub concurrency: u16,
}

impl Tasks {
    /// Runs all tasks until shutdown, then finishes the passes in progress. The tasks start anew when a
    /// namespace gets another ledger.
    pub async fn run(&self, shutdown: Shutdown) {
        loop {
            let claims = tokio::select! {
                claims = self.ledgers.open() => claims,
                () = shutdown.clone().requested() => return,
            };
            tokio::select! {
                () = self.run_on(claims.clone(), shutdown.clone()) => return,
                () = claims.changed() => {}
            }
        }
    }

    /// Runs all tasks on the namespaces with these claims.
    async fn run_on(&self, claims: Arc<Claims>, shutdown: Shutdown) {
        if let Some(namespace) = &self.namespace {
            tokio::select! {
                () = claims.acquire(namespace) => {}
                () = shutdown.clone().requested() => return,
            }
        }
        let (store, writer) = reflector::store();
        let orders = match &self.namespace {
            Some(namespace) => Api::namespaced(self.context.client.clone(), namespace),
            None => Api::all(self.context.client.clone()),
        };
        let passes = controller::run(
            self.context.clone(),
            claims.clone(),
            orders,
            (store.clone(), writer),
            self.concurrency,
            shutdown.clone(),
        );
        // The other tasks end with the passes, not before.
        let customers = async {
            customer::controller::run(self.customers.clone(), claims.clone(), self.namespace.as_deref(), shutdown.clone()).await;
            pending().await
        };
        // These tasks call billing, and compare its charges with the orders.
        let after_billing = async {
            if !claims.is_ledger_known() {
                pending().await
            }
            tokio::join!(self.retention.run(store.clone()), self.settlement_check.run(&store, &claims));
        };
        tokio::select! {
            () = passes => {}
            // The release's own namespace is claimed also if it has no orders yet: its API places them there.
            () = async { claims.is_own(&self.home).await; pending().await } => {}
            () = after_billing => {}
            () = self.context.clock.run(&self.context.client) => {}
            () = customers => {}
            () = receive(self.listener.as_ref()) => {}
            () = shutdown.clone().grace_elapsed() => {
                tracing::warn!("stopped with passes in progress; the next leader continues with their orders");
            }
        }
    }
}
