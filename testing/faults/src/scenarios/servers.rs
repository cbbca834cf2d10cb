//! Scenarios in which a database runs out of a resource.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use orders_crds::Outcome;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;

use super::assert::ensure_equal;
use crate::{customer, effect::Channel, retry::retry_until_definite, system::System, workload::wait_settled};

const LOGIN: &str = "waiter";

/// The number of concurrent requests: more than billing has connections to its database.
const REQUESTS: usize = 60;

/// While all of billing's connections wait for the database, requests get 503, or 504 if the statement was
/// sent, with a time for the retry. In the end, each refill has taken place once.
pub(super) async fn exhausted_pool(system: &System) -> Result<()> {
    system.injector.begin(Vec::new());
    customer::register(system, LOGIN, 1).await?;
    system.injector.hold(Some(Channel::BillingToDatabase));
    let refill = |number: usize| {
        let request = system.http.post(format!("{}/billing/refill", system.url)).json(&json!({"login": LOGIN, "balance": 1}));
        (request, format!("refill-{number}"))
    };
    let responses = join_all((0..REQUESTS).map(|number| {
        let (request, key) = refill(number);
        request.header("idempotency-key", key).send()
    }))
    .await;
    system.injector.hold(None);
    let refused: Vec<_> =
        responses.iter().flatten().filter(|response| [503, 504].contains(&response.status().as_u16())).collect();
    ensure!(refused.len() == REQUESTS, "{} of {REQUESTS} requests got the status 503 or 504", refused.len());
    ensure!(refused.iter().all(|response| response.headers().contains_key("retry-after")), "each response has Retry-After");

    for number in 0..REQUESTS {
        let (request, key) = refill(number);
        let (status, response) = retry_until_definite("a refill", || request.try_clone(), &key).await?;
        ensure!(status == 200, "{status} {response}");
    }
    customer::assert_balance(system, LOGIN, REQUESTS + 1).await
}

/// While the disk is full, no order is charged and no data is lost.
pub(super) async fn full_disk(system: &System, disk: &SmallDisk) -> Result<()> {
    system.injector.begin(Vec::new());
    customer::register(system, LOGIN, 100).await?;

    disk.fill()?;
    let refused = system.http.post(format!("{}/billing/refill", system.url)).json(&json!({"login": LOGIN, "balance": 7}));
    let refused = refused.header("idempotency-key", "second").send().await?;
    ensure_equal("the status of a refill on a full disk", refused.status().as_u16(), 503)?;
    let mut ids = Vec::new();
    for number in 0..5 {
        let (status, id) = customer::place(system, LOGIN, number, 10, "wait=0").await?;
        ensure_equal("the status of an order that cannot be charged", status, 202)?;
        ids.push(id);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    customer::assert_balance(system, LOGIN, 100).await?;

    disk.empty()?;
    for id in ids {
        ensure_equal("the outcome", wait_settled(system, &format!("order-{id}")).await?.outcome(), Outcome::Paid)?;
    }
    Ok(())
}

/// A disk of two megabytes, in memory. Needs root.
pub(super) struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    pub(super) fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let options = c"size=2m".to_owned();
        mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), Some(options.as_c_str()))
            .context("cannot mount a small disk; the scenario full-disk needs root")?;
        Ok(SmallDisk { directory })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Fills the disk, so that no byte is free.
    fn fill(&self) -> Result<()> {
        use std::io::Write;
        let mut ballast = std::fs::File::create(self.ballast())?;
        while ballast.write_all(&[0; 4096]).is_ok() {}
        Ok(())
    }

    fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}
