//! The sections of the benchmark, each of which is one measurement.

pub mod archive;
pub mod backlog;
pub mod billing;
pub mod growth;
pub mod latency;
pub mod throughput;

use std::time::Duration;

use anyhow::Result;

use crate::bench::Bench;
use crate::cost::{Measured, Side, measured};
use crate::load::{self, Load};
use crate::options::Section;
use crate::site::Site;

/// Measures one section, or all sections.
///
/// # Errors
/// If the section fails. With all sections, each one runs, and the first error is returned at the end.
pub async fn run(bench: &mut Bench, section: Section) -> Result<()> {
    match section {
        Section::Throughput => throughput::run(bench).await,
        Section::Latency => latency::run(bench).await,
        Section::Billing => billing::run(bench).await,
        Section::Backlog => backlog::run(bench).await,
        Section::Growth => growth::run(bench).await,
        Section::Archive => archive::run(bench).await,
        Section::All => {
            let all =
                [Section::Throughput, Section::Latency, Section::Billing, Section::Backlog, Section::Growth, Section::Archive];
            let mut first = Ok(());
            for section in all {
                if let Err(error) = Box::pin(run(bench, section)).await {
                    eprintln!("{section:?} failed: {error:#}");
                    first = first.and(Err(error));
                }
            }
            first
        }
    }
}

/// Runs the raw client in a closed loop. The recorded time is that of the two writes for which
/// a customer waits.
async fn raw_loop(site: &Site, clients: u32, duration: Duration, events: bool, removal: bool) -> Result<Load> {
    let mut writer = site.writer.clone();
    (writer.events, writer.removal) = (events, removal);
    let work = move |worker| {
        let writer = writer.clone();
        async move { writer.finished(worker).await }
    };
    load::closed(clients, duration, work).await
}

/// Places orders over HTTP in a closed loop.
async fn placed_loop(site: &Site, clients: u32, duration: Duration) -> Result<Load> {
    let customers = site.customers.clone();
    let work = move |client| {
        let customers = customers.clone();
        async move { customers.place(client).await }
    };
    load::closed(clients, duration, work).await
}

/// Runs the raw loop and measures its costs.
async fn raw(site: &Site, clients: u32, duration: Duration, events: bool, removal: bool) -> Result<Measured> {
    measured(site, Side::Raw, raw_loop(site, clients, duration, events, removal)).await
}

/// Runs the loop of orders over HTTP and measures its costs.
async fn placed(site: &Site, clients: u32, duration: Duration) -> Result<Measured> {
    measured(site, Side::Services, placed_loop(site, clients, duration)).await
}
