//! Tests of customers that are created over REST or with kubectl, each with its billing account.

use std::time::Instant;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use orders_crds::{ConditionType, Customer, CustomerSpec, conditions};
use orders_testbed::wait_for;
use reqwest::Method;
use serde_json::{Value, json};

use crate::shop::{Answer, SOON, Shop};

impl Shop {
    fn customers(&self) -> Api<Customer> {
        Api::namespaced(self.client.clone(), &self.stack.namespace)
    }

    /// Creates a customer as kubectl does.
    async fn apply_customer(&self, name: &str, login: &str) -> Result<()> {
        let spec = CustomerSpec { login: login.to_owned(), email: format!("{login}@example.com") };
        self.customers().create(&PostParams::default(), &Customer::new(name, spec)).await?;
        Ok(())
    }

    /// Waits until the customer's account has this reason and this balance.
    async fn shown(&self, name: &str, reason: &str, balance: &str) -> Result<Customer> {
        wait_for(&format!("customer {name} to be {reason} with {balance}"), SOON, || async {
            let customer = self.customers().get(name).await.ok()?;
            let status = customer.status.as_ref()?;
            let opened = conditions::find(&status.conditions, ConditionType::AccountOpened)?;
            let shown = status.balance.map(|balance| balance.to_string());
            (opened.reason == reason && shown.as_deref() == Some(balance)).then_some(customer)
        })
        .await
    }

    async fn make_user(&self, login: &str, key: Option<&str>) -> Result<Answer> {
        let mut request = self.request(Method::POST, "/users");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request.json(&json!({"login": login, "e_mail": "who@example.com"}))).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_made_through_rest_has_an_account_and_shows_its_balance() -> Result<()> {
    let shop = Shop::open().await?;
    let made = shop.make_user("Aurore56", None).await?;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.headers["location"], "/users/Aurore56");
    assert_eq!((&made.json()["account_opened"], &made.json()["reason"]), (&json!(true), &json!("Opened")), "{made:?}");
    assert_eq!(shop.get("/users/Aurore56").await?.json(), made.json());
    assert_eq!(shop.balance("Aurore56").await?, "0.0", "there is an account");
    let name = made.json()["name"].as_str().context("a name")?.to_owned();

    // A customer with refills and orders is written rarely, regardless of the number of orders.
    shop.post("/billing/refill", json!({"login": "Aurore56", "balance": 500}))
        .await?
        .assert(200, r#"{"login":"Aurore56","balance":500.0}"#);
    let start = shop.customers().list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let began = Instant::now();
    for _ in 0..30 {
        assert_eq!(shop.order("Aurore56", json!(10)).await?.status, 200);
    }
    shop.shown(&name, "Opened", "200.00").await?;
    // One write every five seconds, and a few at the beginning and the end.
    let seldom = 4 + began.elapsed().as_secs() / 5;
    // A new customer marks the end of the writes so far.
    shop.apply_customer("end-of-list", "End1").await?;
    let mut writes = shop.customers().watch(&WatchParams::default(), &start).await?.boxed();
    let mut count = 0;
    loop {
        match tokio::time::timeout(SOON, writes.next()).await?.context("the watch ended")?? {
            WatchEvent::Added(_) => break,
            event => count += u64::from(matches!(event, WatchEvent::Modified(_))),
        }
    }
    assert!((1..=seldom).contains(&count), "30 orders, {count} writes, of which {seldom} are seldom");

    let events: Api<Event> = Api::namespaced(shop.client.clone(), &shop.stack.namespace);
    let told = events.list(&ListParams::default().fields(&format!("regarding.name={name}"))).await?;
    let notes: Vec<_> = told.items.iter().filter_map(|event| event.note.as_deref()).collect();
    assert_eq!(notes, ["Opened the account Aurore56."], "what kubectl describe shows");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_login_is_one_customer_however_often_it_is_asked_for() -> Result<()> {
    let shop = Shop::open().await?;
    let asked = (0..10).map(|_| shop.make_user("dora", Some("once")));
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer?.status, 201);
    }
    shop.make_user("dora", None).await?.assert_problem(409);
    shop.make_user("dora", Some("another")).await?.assert_problem(409);
    let other_address = json!({"login": "dora", "e_mail": "other@example.com"});
    let request = shop.request(Method::POST, "/users").header("idempotency-key", "once").json(&other_address);
    shop.send(request).await?.assert_problem(422);
    assert_eq!(shop.make_user("Dora", None).await?.status, 201, "another login");
    assert_eq!(shop.customers().list(&ListParams::default()).await?.items.len(), 2);
    shop.get("/users/nobody").await?.assert_problem(404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_was_there_keeps_its_money_and_outlives_its_customer() -> Result<()> {
    let shop = Shop::open().await?;
    shop.customer("emil", json!(70)).await?;
    shop.apply_customer("by-hand", "emil").await?;
    shop.shown("by-hand", "AlreadyOpen", "70.00").await?;
    shop.make_user("emil", None).await?.assert_problem(409);
    // Two customers with the same login share the account.
    shop.apply_customer("twin", "emil").await?;
    shop.shown("twin", "AlreadyOpen", "70.00").await?;
    assert_eq!(shop.order("emil", json!(20)).await?.status, 200);
    for name in ["by-hand", "twin"] {
        shop.shown(name, "AlreadyOpen", "50.00").await?;
    }

    let customers = shop.customers();
    let patch =
        async |spec: Value| customers.patch("twin", &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await;
    let refused = patch(json!({"login": "other"})).await.expect_err("a login stays").to_string();
    assert!(refused.contains("login is immutable"), "{refused}");
    patch(json!({"email": "new@example.com"})).await?;
    let refused = patch(json!({"email": "nowhere"})).await.expect_err("not an address").to_string();
    assert!(refused.contains("spec.email"), "{refused}");

    for name in ["by-hand", "twin"] {
        shop.customers().delete(name, &DeleteParams::default()).await?;
    }
    assert_eq!(shop.balance("emil").await?, "50.0", "the ledger is no customer's to delete");
    assert_eq!(shop.order("emil", json!(50)).await?.status, 200);
    let again = shop.make_user("emil", None).await?;
    assert_eq!((again.status, &again.json()["reason"]), (201, &json!("AlreadyOpen")), "{again:?}");
    Ok(())
}

async fn said(shop: &Shop, reason: &str) -> Result<()> {
    wait_for(&format!("the account to be {reason}"), SOON, || async {
        shop.get("/users/frida").await.ok().filter(|answer| answer.json()["reason"] == reason).map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_made_while_billing_is_away_gets_the_account_once_it_is_back() -> Result<()> {
    let mut shop = Shop::open().await?;
    shop.stack.billing.kill()?;
    let request = shop.request(Method::POST, "/users").header("prefer", "wait=3").header("idempotency-key", "k");
    let made = shop.send(request.json(&json!({"login": "frida", "e_mail": "frida@example.com"}))).await?;
    assert_eq!((made.status, &made.json()["account_opened"]), (202, &json!(false)), "{made:?}");
    said(&shop, "BillingUnavailable").await?;
    shop.stack.billing.start_again().await?;
    said(&shop, "Opened").await?;
    assert_eq!(shop.balance("frida").await?, "0.0");

    // A change while the operator is stopped is detected at its next start.
    shop.post("/billing/refill", json!({"login": "frida", "balance": 5}))
        .await?
        .assert(200, r#"{"login":"frida","balance":5.0}"#);
    let operator = &mut shop.stack.operators[0];
    operator.kill()?;
    operator.start_again().await?;
    let name = shop.customers().list(&ListParams::default()).await?.items.remove(0).metadata.name.context("a name")?;
    shop.shown(&name, "Opened", "5.00").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_that_cannot_be_is_refused_and_nothing_is_made() -> Result<()> {
    let shop = Shop::open().await?;
    let long = "a".repeat(65);
    for (body, field) in [
        (json!({}), "login"),
        (json!({"login": "ida"}), "e_mail"),
        (json!({"login": "", "e_mail": "a@b.cd"}), "login"),
        (json!({"login": "a b", "e_mail": "a@b.cd"}), "login"),
        (json!({"login": long, "e_mail": "a@b.cd"}), "login"),
        (json!({"login": 7, "e_mail": "a@b.cd"}), "login"),
        (json!({"login": "ida", "e_mail": "nowhere"}), "e_mail"),
        (json!({"login": "ida", "e_mail": "a@b.cd\r\nBcc: x@y.zz"}), "e_mail"),
        (json!({"login": "ida", "e_mail": "a@b.cd", "balance": 1000}), "balance"),
    ] {
        let answer = shop.post("/users", body.clone()).await?;
        answer.assert_problem(422);
        assert_eq!(answer.json()["field"], field, "{body}: {answer:?}");
    }
    let no_key = shop.request(Method::POST, "/users").header("idempotency-key", "a b");
    shop.send(no_key.json(&json!({"login": "ida", "e_mail": "a@b.cd"}))).await?.assert_problem(400);
    shop.get("/users/a%20b").await?.assert_problem(422);
    assert_eq!(shop.get("/users").await?.status, 405);
    assert!(shop.customers().list(&ListParams::default()).await?.items.is_empty());
    shop.get("/billing/account/ida").await?.assert_problem(404);
    Ok(())
}
