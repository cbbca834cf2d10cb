//! The closed loops that several sections measure.

use std::time::Duration;

use anyhow::Result;

use crate::cost::{Measurement, Side, measure};
use crate::environment::Environment;
use crate::load::{self, Load};

/// Runs the raw client in a closed loop. The recorded time is that of the two writes for which
/// a customer waits.
pub async fn run_raw_loop(
    environment: &Environment,
    clients: u32,
    duration: Duration,
    events: bool,
    removal: bool,
) -> Result<Load> {
    let mut writer = environment.writer.clone();
    (writer.events, writer.removal) = (events, removal);
    let work = move |worker| {
        let writer = writer.clone();
        async move { writer.write_finished(worker).await }
    };
    load::run_closed_loop(clients, duration, work).await
}

/// Places orders over HTTP in a closed loop.
pub async fn run_order_loop(environment: &Environment, clients: u32, duration: Duration) -> Result<Load> {
    let customers = environment.customers.clone();
    let work = move |client| {
        let customers = customers.clone();
        async move { customers.measure_order(client).await }
    };
    load::run_closed_loop(clients, duration, work).await
}

/// Runs the raw loop and measures its costs.
pub async fn measure_raw(
    environment: &Environment,
    clients: u32,
    duration: Duration,
    events: bool,
    removal: bool,
) -> Result<Measurement> {
    measure(environment, Side::Raw, run_raw_loop(environment, clients, duration, events, removal)).await
}

/// Runs the loop of orders over HTTP and measures its costs.
pub async fn measure_orders(environment: &Environment, clients: u32, duration: Duration) -> Result<Measurement> {
    measure(environment, Side::Services, run_order_loop(environment, clients, duration)).await
}
