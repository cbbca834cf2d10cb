//! Tests of names: a name is good once. An order that is created again under the name of an archived one takes over its
//! outcome, or is refused.

use anyhow::{Context, Result};
use kube::{
    ResourceExt,
    api::{DeleteParams, PostParams},
};
use orders_crds::{Order, OrderSpec, Outcome, Refusal};
use orders_testbed::wait_for;
use serde_json::json;
use sqlx::AnyPool;

use crate::shop::{Shop, WAIT_TIMEOUT, reasons};

fn spec(login: &str, amount: &str) -> OrderSpec {
    OrderSpec {
        login: login.to_owned(),
        email: format!("{login}@example.com"),
        amount: amount.to_owned(),
        ..OrderSpec::default()
    }
}

impl Shop {
    /// Creates the order as kubectl does, and waits until it is decided and its message sent.
    async fn apply(&self, name: &str, spec: OrderSpec) -> Result<Order> {
        self.orders().create(&PostParams::default(), &Order::new(name, spec)).await?;
        self.wait_order(name, "decided and notified", |order| order.status.as_ref().is_some_and(|status| status.is_notified()))
            .await
    }

    /// Deletes an order, and waits until the archive has it.
    async fn remove(&self, order: &Order) -> Result<()> {
        let uid = order.uid().context("a UID")?;
        self.orders().delete(&order.name_any(), &DeleteParams::default()).await?;
        wait_for("the order in the archive", WAIT_TIMEOUT, || async {
            let archived = self.archived_state(&uid).await.ok()?;
            (archived == reasons(order).first().copied().unwrap_or_default()).then_some(())
        })
        .await
    }

    /// Deletes all orders from the archive's database. Returns their number.
    pub async fn lose_archived_orders(&self) -> Result<u64> {
        sqlx::any::install_default_drivers();
        let file = || format!("sqlite://{}", self.stack.directory.join("archive.db").display());
        let archive = AnyPool::connect(&self.options.archive_database.clone().unwrap_or_else(file)).await?;
        let lost = sqlx::query("DELETE FROM orders").execute(&archive).await?;
        archive.close().await;
        Ok(lost.rows_affected())
    }

    async fn archived_state(&self, uid: &str) -> Result<String> {
        let path = format!("/archive/orders/{uid}");
        let archived = self.call_archive("operator", reqwest::Method::GET, &path, None).await?.json();
        let order: Order = serde_json::from_value(archived)?;
        Ok(reasons(&order).first().copied().unwrap_or_default().to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_order_file_applied_again_after_its_removal_is_charged_once() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("kira", json!(1000)).await?;
    let first = shop.apply("from-git", spec("kira", "10")).await?;
    shop.remove(&first).await?;
    for amount in ["10", "10.00"] {
        let again = shop.apply("from-git", spec("kira", amount)).await?;
        assert_ne!(again.uid(), first.uid());
        let status = again.status.clone().context("a status")?;
        assert_eq!((again.outcome(), status.adopted_from.clone()), (Outcome::Paid, first.uid()));
        assert_eq!(status.charge, first.status.as_ref().and_then(|status| status.charge.clone()));
        assert_eq!(status.history[0].action, "Adopt");
        shop.remove(&again).await?;
    }
    assert_eq!((shop.balance("kira").await?, shop.texts("kira").await?.len()), ("990.0".to_owned(), 1));
    shop.assert_audit_passes().await?;

    // The order can be cancelled. Its charge is that of the first.
    let again = shop.apply("from-git", OrderSpec { cancel_requested: Some(true), ..spec("kira", "10") }).await;
    let again = again?;
    shop.wait_order("from-git", "refunded", |order| order.outcome() == Outcome::Refused(Refusal::Refunded)).await?;
    assert_eq!(shop.balance("kira").await?, "1000.0");
    shop.assert_audit_passes().await?;
    let refunded = shop.orders().get(&again.name_any()).await?;
    shop.remove(&refunded).await?;
    let last = shop.apply("from-git", spec("kira", "10")).await?;
    assert_eq!(last.outcome(), Outcome::Refused(Refusal::Refunded), "the newest outcome counts");
    assert_eq!(shop.balance("kira").await?, "1000.0");
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_order_under_the_name_of_an_archived_one_is_refused() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("lena", json!(1000)).await?;
    let first = shop.apply("from-git", spec("lena", "10")).await?;
    shop.remove(&first).await?;
    let other = shop.apply("from-git", spec("lena", "11")).await?;
    assert_eq!(other.outcome(), Outcome::Refused(Refusal::AlreadyExists));
    assert_eq!(shop.texts("lena").await?.last().map(String::as_str), Some("Заказ не оформлен: заказ с таким именем уже есть."));
    assert_eq!(shop.balance("lena").await?, "990.0");
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_name_was_charged_is_refused_if_the_archive_lost_the_first_one() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("olaf", json!(1000)).await?;
    let first = shop.apply("from-git", spec("olaf", "10")).await?;
    shop.remove(&first).await?;
    assert_eq!(shop.lose_archived_orders().await?, 1);
    let again = shop.apply("from-git", spec("olaf", "10")).await?;
    assert_eq!(again.outcome(), Outcome::Refused(Refusal::AlreadyExists));
    assert_eq!(shop.texts("olaf").await?, ["Заказ успешно оформлен", "Заказ не оформлен: заказ с таким именем уже есть."]);
    assert_eq!(shop.balance("olaf").await?, "990.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_without_a_number_waits_visibly_while_the_archive_is_away() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("mona", json!(1000)).await?;
    let first = shop.apply("from-git", spec("mona", "10")).await?;
    shop.remove(&first).await?;
    shop.stack.archive.kill()?;
    shop.orders().create(&PostParams::default(), &Order::new("from-git", spec("mona", "10"))).await?;
    let waiting = shop.wait_order("from-git", "waiting", |order| reasons(order).contains(&"ArchiveUnavailable")).await?;
    assert_eq!(waiting.outcome(), Outcome::Undecided);
    assert_eq!(shop.balance("mona").await?, "990.0");
    shop.stack.archive.restart().await?;
    shop.wait_order("from-git", "taken over", |order| order.outcome() == Outcome::Paid).await?;
    assert_eq!(shop.balance("mona").await?, "990.0");
    shop.assert_audit_passes().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_applied_again_before_the_archive_has_the_first_is_charged_once() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("nina", json!(1000)).await?;
    // The message is stored and cannot be delivered, so the first order is not archived yet.
    shop.inbox.stop()?;
    shop.orders().create(&PostParams::default(), &Order::new("from-git", spec("nina", "10"))).await?;
    let first = shop.wait_message_stored("from-git").await?;
    assert_eq!(first.outcome(), Outcome::Paid);
    shop.orders().delete("from-git", &DeleteParams::default()).await?;
    shop.orders().create(&PostParams::default(), &Order::new("from-git", spec("nina", "10"))).await?;
    let again = shop.wait_order("from-git", "taken over", |order| order.outcome() == Outcome::Paid).await?;
    assert_eq!(again.status.context("a status")?.adopted_from, first.uid());
    shop.inbox.restart().await?;
    assert_eq!(shop.balance("nina").await?, "990.0");
    shop.assert_audit_passes().await
}
