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

use crate::shop::{Response, Shop, WAIT_TIMEOUT};

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
    async fn wait_shown(&self, name: &str, reason: &str, balance: &str) -> Result<Customer> {
        wait_for(&format!("customer {name} to be {reason} with {balance}"), WAIT_TIMEOUT, || async {
            let customer = self.customers().get(name).await.ok()?;
            let status = customer.status.as_ref()?;
            let opened = conditions::find(&status.conditions, ConditionType::AccountOpened)?;
            let shown = status.balance.map(|balance| balance.to_string());
            (opened.reason == reason && shown.as_deref() == Some(balance)).then_some(customer)
        })
        .await
    }

    async fn create_user(&self, login: &str, key: Option<&str>) -> Result<Response> {
        let mut request = self.request(Method::POST, "/users");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request.json(&json!({"login": login, "e_mail": "who@example.com"}))).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_created_through_rest_has_an_account_and_shows_its_balance() -> Result<()> {
    let shop = Shop::start().await?;
    let created = shop.create_user("Aurore56", None).await?;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.headers["location"], "/users/Aurore56");
    assert_eq!((&created.json()["account_opened"], &created.json()["reason"]), (&json!(true), &json!("Opened")), "{created:?}");
    assert_eq!(shop.get("/users/Aurore56").await?.json(), created.json());
    assert_eq!(shop.balance("Aurore56").await?, "0.0", "there is an account");
    let name = created.json()["name"].as_str().context("a name")?.to_owned();

    // A customer with refills and orders is written rarely, regardless of the number of orders.
    shop.post("/billing/refill", json!({"login": "Aurore56", "balance": 500}))
        .await?
        .assert(200, r#"{"login":"Aurore56","balance":500.0}"#);
    let start = shop.customers().list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let began = Instant::now();
    for _ in 0..30 {
        assert_eq!(shop.place_order("Aurore56", json!(10)).await?.status, 200);
    }
    shop.wait_shown(&name, "Opened", "200.00").await?;
    // One write every five seconds, and a few at the beginning and the end.
    let max_writes = 4 + began.elapsed().as_secs() / 5;
    // A new customer marks the end of the writes so far.
    shop.apply_customer("end-of-list", "End1").await?;
    let mut writes = shop.customers().watch(&WatchParams::default(), &start).await?.boxed();
    let mut count = 0;
    loop {
        match tokio::time::timeout(WAIT_TIMEOUT, writes.next()).await?.context("the watch ended")?? {
            WatchEvent::Added(_) => break,
            event => count += u64::from(matches!(event, WatchEvent::Modified(_))),
        }
    }
    assert!((1..=max_writes).contains(&count), "30 orders caused {count} writes, at most {max_writes} are expected");

    let events: Api<Event> = Api::namespaced(shop.client.clone(), &shop.stack.namespace);
    let published = events.list(&ListParams::default().fields(&format!("regarding.name={name}"))).await?;
    let notes: Vec<_> = published.items.iter().filter_map(|event| event.note.as_deref()).collect();
    assert_eq!(notes, ["Opened the account Aurore56."], "what kubectl describe shows");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_requests_create_one_customer_for_a_login() -> Result<()> {
    let shop = Shop::start().await?;
    let requests = (0..10).map(|_| shop.create_user("dora", Some("once")));
    for response in futures::future::join_all(requests).await {
        assert_eq!(response?.status, 201);
    }
    shop.create_user("dora", None).await?.assert_problem(409);
    shop.create_user("dora", Some("another")).await?.assert_problem(409);
    let other_address = json!({"login": "dora", "e_mail": "other@example.com"});
    let request = shop.request(Method::POST, "/users").header("idempotency-key", "once").json(&other_address);
    shop.send(request).await?.assert_problem(422);
    assert_eq!(shop.create_user("Dora", None).await?.status, 201, "another login");
    assert_eq!(shop.customers().list(&ListParams::default()).await?.items.len(), 2);
    shop.get("/users/nobody").await?.assert_problem(404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_account_keeps_its_balance_and_outlives_its_customer() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("emil", json!(70)).await?;
    shop.apply_customer("by-hand", "emil").await?;
    shop.wait_shown("by-hand", "AlreadyOpen", "70.00").await?;
    shop.create_user("emil", None).await?.assert_problem(409);
    // Two customers with the same login share the account.
    shop.apply_customer("twin", "emil").await?;
    shop.wait_shown("twin", "AlreadyOpen", "70.00").await?;
    assert_eq!(shop.place_order("emil", json!(20)).await?.status, 200);
    for name in ["by-hand", "twin"] {
        shop.wait_shown(name, "AlreadyOpen", "50.00").await?;
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
    assert_eq!(shop.balance("emil").await?, "50.0", "the deletion of a customer keeps the account");
    assert_eq!(shop.place_order("emil", json!(50)).await?.status, 200);
    let again = shop.create_user("emil", None).await?;
    assert_eq!((again.status, &again.json()["reason"]), (201, &json!("AlreadyOpen")), "{again:?}");
    Ok(())
}

async fn wait_reason(shop: &Shop, reason: &str) -> Result<()> {
    wait_for(&format!("the account to be {reason}"), WAIT_TIMEOUT, || async {
        shop.get("/users/frida").await.ok().filter(|response| response.json()["reason"] == reason).map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_created_while_billing_is_unavailable_gets_the_account_after_it_recovers() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.stack.billing.kill()?;
    let request = shop.request(Method::POST, "/users").header("prefer", "wait=3").header("idempotency-key", "k");
    let created = shop.send(request.json(&json!({"login": "frida", "e_mail": "frida@example.com"}))).await?;
    assert_eq!((created.status, &created.json()["account_opened"]), (202, &json!(false)), "{created:?}");
    wait_reason(&shop, "BillingUnavailable").await?;
    shop.stack.billing.restart().await?;
    wait_reason(&shop, "Opened").await?;
    assert_eq!(shop.balance("frida").await?, "0.0");

    // A change while the operator is stopped is detected at its next start.
    shop.post("/billing/refill", json!({"login": "frida", "balance": 5}))
        .await?
        .assert(200, r#"{"login":"frida","balance":5.0}"#);
    let operator = &mut shop.stack.operators[0];
    operator.kill()?;
    operator.restart().await?;
    let name = shop.customers().list(&ListParams::default()).await?.items.remove(0).metadata.name.context("a name")?;
    shop.wait_shown(&name, "Opened", "5.00").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_customer_is_refused_and_nothing_is_created() -> Result<()> {
    let shop = Shop::start().await?;
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
        let response = shop.post("/users", body.clone()).await?;
        response.assert_problem(422);
        assert_eq!(response.json()["field"], field, "{body}: {response:?}");
    }
    let no_key = shop.request(Method::POST, "/users").header("idempotency-key", "a b");
    shop.send(no_key.json(&json!({"login": "ida", "e_mail": "a@b.cd"}))).await?.assert_problem(400);
    shop.get("/users/a%20b").await?.assert_problem(422);
    assert_eq!(shop.get("/users").await?.status, 405);
    assert!(shop.customers().list(&ListParams::default()).await?.items.is_empty());
    shop.get("/billing/account/ida").await?.assert_problem(404);
    Ok(())
}
