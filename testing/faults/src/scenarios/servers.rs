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

use super::same;
use crate::{customer, effect::Channel, persist::persist, shop::Shop, workload::settled};

const LOGIN: &str = "waiter";

/// The number of concurrent requests: more than billing has connections to its database.
const REQUESTS: usize = 60;

/// While all of billing's connections wait for the database, billing returns 503 with a time for the
/// retry. In the end, each refill has taken place once.
pub(super) async fn exhausted_pool(shop: &Shop) -> Result<()> {
    shop.board.begin(Vec::new());
    customer::register(shop, LOGIN, 1).await?;
    shop.board.hold(Some(Channel::BillingToDatabase));
    let refill = |number: usize| {
        let request = shop.http.post(format!("{}/billing/refill", shop.url)).json(&json!({"login": LOGIN, "balance": 1}));
        (request, format!("refill-{number}"))
    };
    let answers = join_all((0..REQUESTS).map(|number| {
        let (request, key) = refill(number);
        request.header("idempotency-key", key).send()
    }))
    .await;
    shop.board.hold(None);
    let refused: Vec<_> = answers.iter().flatten().filter(|answer| answer.status() == 503).collect();
    ensure!(refused.len() == REQUESTS, "{} of {REQUESTS} requests were answered 503", refused.len());
    ensure!(refused.iter().all(|answer| answer.headers().contains_key("retry-after")), "each says when to come again");

    for number in 0..REQUESTS {
        let (request, key) = refill(number);
        let (status, answer) = persist("a refill", || request.try_clone(), &key).await?;
        ensure!(status == 200, "{status} {answer}");
    }
    customer::assert_balance(shop, LOGIN, REQUESTS + 1).await
}

/// While the disk is full, no order is charged and no data is lost.
pub(super) async fn full_disk(shop: &Shop, disk: &SmallDisk) -> Result<()> {
    shop.board.begin(Vec::new());
    customer::register(shop, LOGIN, 100).await?;

    disk.fill()?;
    let refused = shop.http.post(format!("{}/billing/refill", shop.url)).json(&json!({"login": LOGIN, "balance": 7}));
    let refused = refused.header("idempotency-key", "second").send().await?;
    same("the answer to a refill on a full disk", refused.status().as_u16(), 503)?;
    let mut ids = Vec::new();
    for number in 0..5 {
        let (status, id) = customer::place(shop, LOGIN, number, 10, "wait=0").await?;
        same("the answer to an order that cannot be charged", status, 202)?;
        ids.push(id);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    customer::assert_balance(shop, LOGIN, 100).await?;

    disk.empty()?;
    for id in ids {
        same("the outcome", settled(shop, &format!("order-{id}")).await?.outcome(), Outcome::Paid)?;
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
