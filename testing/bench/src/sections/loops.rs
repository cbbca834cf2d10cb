//! The closed loops that several sections measure.

use std::time::Duration;

use anyhow::Result;

use crate::cost::{Measured, Side, measured};
use crate::load::{self, Load};
use crate::site::Site;

/// Runs the raw client in a closed loop. The recorded time is that of the two writes for which
/// a customer waits.
pub async fn raw_loop(site: &Site, clients: u32, duration: Duration, events: bool, removal: bool) -> Result<Load> {
    let mut writer = site.writer.clone();
    (writer.events, writer.removal) = (events, removal);
    let work = move |worker| {
        let writer = writer.clone();
        async move { writer.finished(worker).await }
    };
    load::closed(clients, duration, work).await
}

/// Places orders over HTTP in a closed loop.
pub async fn placed_loop(site: &Site, clients: u32, duration: Duration) -> Result<Load> {
    let customers = site.customers.clone();
    let work = move |client| {
        let customers = customers.clone();
        async move { customers.place(client).await }
    };
    load::closed(clients, duration, work).await
}

/// Runs the raw loop and measures its costs.
pub async fn raw(site: &Site, clients: u32, duration: Duration, events: bool, removal: bool) -> Result<Measured> {
    measured(site, Side::Raw, raw_loop(site, clients, duration, events, removal)).await
}

/// Runs the loop of orders over HTTP and measures its costs.
pub async fn placed(site: &Site, clients: u32, duration: Duration) -> Result<Measured> {
    measured(site, Side::Services, placed_loop(site, clients, duration)).await
}
