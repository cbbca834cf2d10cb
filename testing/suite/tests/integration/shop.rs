//! The fixture of the tests: the running services with their servers, and requests of their customers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::{Api, Client, ResourceExt, api::ListParams};
use orders_crds::{Order, Outcome};
use orders_shop::{Database, Interaction, Stack, StackOptions, interaction_from_env};
use orders_testbed::{Cluster, Inbox, Nats, Postgres, wait_for, wait_until};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use orders_testbed::WAIT_TIMEOUT;

/// The style of interaction that the environment variable `INTERACTION` names. All tests use it unless they
/// choose a style themselves.
pub fn interaction() -> Interaction {
    interaction_from_env().expect("a style of interaction")
}

/// The kind of database that the environment variable `DATABASE` names. All tests use it unless they choose one
/// themselves.
pub fn database() -> Database {
    Database::from_env().expect("a kind of database")
}

/// The additional entries of a history if notify or the mail server was slow.
pub const SLOW_NOTIFY: [&str; 2] = ["Notify Delivering", "Notify NotifyUnavailable"];

/// The running services with a mail server, in a separate namespace.
pub struct Shop {
    pub stack: Stack,
    pub inbox: Inbox,
    /// The broker, if the style of interaction uses one.
    pub nats: Option<Nats>,
    /// The options with which the stack was started.
    pub options: StackOptions,
    // This field is dropped after the services, which need the database until they stop.
    _postgres: Option<Postgres>,
    pub client: Client,
    pub http: reqwest::Client,
    // This field is dropped last, so that the directory is deleted after the processes that write to it have stopped.
    pub directory: TempDir,
}

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub content_type: String,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The order's id in the response.
    pub fn id(&self) -> i64 {
        self.json()["id"].as_i64().unwrap_or_else(|| panic!("no id in {self:?}"))
    }

    /// Asserts that the response is a problem document (RFC 9457) with this status.
    #[track_caller]
    pub fn assert_problem(&self, status: u16) {
        assert_eq!((self.status, self.content_type.as_str()), (status, "application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{problem}");
    }

    #[track_caller]
    pub fn assert(&self, status: u16, text: &str) {
        assert_eq!((self.status, self.text.as_str()), (status, text), "{self:?}");
        assert_eq!(self.content_type, "application/json");
    }
}

impl Shop {
    /// Starts a shop with one operator.
    pub async fn start() -> Result<Self> {
        Self::start_with(&Cluster::control_plane().await?, |options| options).await
    }

    /// Starts a shop with changed options.
    pub async fn start_with(cluster: &Cluster, change: impl FnOnce(StackOptions) -> StackOptions) -> Result<Self> {
        Self::start_with_style(interaction(), cluster, change).await
    }

    /// Starts a shop with this style of interaction.
    pub async fn start_with_style(
        interaction: Interaction,
        cluster: &Cluster,
        change: impl FnOnce(StackOptions) -> StackOptions,
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let inbox = Inbox::start(directory.path()).await?;
        let nats = match interaction {
            Interaction::Http => None,
            _ => Some(Nats::start(directory.path()).await?),
        };
        let access = nats.as_ref().map(Nats::access);
        let postgres = match database() {
            Database::Sqlite => None,
            Database::Postgres => Some(Postgres::start(directory.path()).await?),
        };
        let mut options = StackOptions { interaction, nats: access, ..StackOptions::new(inbox.smtp_url()) };
        if let Some(postgres) = &postgres {
            options.billing_database = Some(postgres.database("billing")?);
            options.notify_database = Some(postgres.database("notify")?);
            options.archive_database = Some(postgres.database("archive")?);
        }
        let options = change(options);
        let stack = Stack::start(cluster, directory.path(), options.clone()).await?;
        let client = cluster.client().await?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(90)).build()?;
        Ok(Shop { stack, inbox, nats, options, _postgres: postgres, client, http, directory })
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.stack.api_server.url))
    }

    pub async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.context("no response")?;
        let headers = response.headers().clone();
        let content_type = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        Ok(Response { status: response.status().as_u16(), content_type, headers, text: response.text().await? })
    }

    pub async fn get(&self, path: &str) -> Result<Response> {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Result<Response> {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// Opens an account with this balance.
    pub async fn open_account(&self, login: &str, balance: Value) -> Result<()> {
        let response = self.send(self.request(Method::POST, &format!("/billing/register?login={login}"))).await?;
        ensure!(response.status == 200, "{response:?}");
        if balance != json!(0) {
            let response = self.post("/billing/refill", json!({"login": login, "balance": balance})).await?;
            ensure!(response.status == 200, "{response:?}");
        }
        Ok(())
    }

    pub fn order_request(&self, login: &str, amount: Value) -> RequestBuilder {
        let body = json!({"login": login, "e_mail": format!("{login}@example.com"), "id_cart": 0, "amount": amount});
        self.request(Method::POST, "/orders/").json(&body)
    }

    pub async fn place_order(&self, login: &str, amount: Value) -> Result<Response> {
        self.send(self.order_request(login, amount)).await
    }

    /// The balance as the public API shows it, such as `800.0`.
    pub async fn balance(&self, login: &str) -> Result<String> {
        let response = self.get(&format!("/billing/account/{login}")).await?;
        ensure!(response.status == 200, "{response:?}");
        let prefix = format!(r#"{{"login":"{login}","balance":"#);
        Ok(response.text.trim_start_matches(&prefix).trim_end_matches('}').to_owned())
    }

    /// The texts of the customer's messages and whether each was sent.
    pub async fn messages(&self, login: &str) -> Result<Vec<(String, bool)>> {
        let response = self.get(&format!("/notify/log/{login}")).await?;
        ensure!(response.status == 200, "{response:?}");
        let messages = response.json().as_array().cloned().unwrap_or_default();
        Ok(messages.iter().map(|m| (m["text"].as_str().unwrap_or_default().to_owned(), m["is_sended"] == true)).collect())
    }

    pub fn orders(&self) -> Api<Order> {
        Api::namespaced(self.client.clone(), &self.stack.namespace)
    }

    pub async fn all_orders(&self) -> Result<Vec<Order>> {
        Ok(self.orders().list(&ListParams::default()).await?.items)
    }

    /// Waits until the order with this resource name fulfills a condition.
    pub async fn wait_order(&self, name: &str, what: &str, fulfills: impl Fn(&Order) -> bool) -> Result<Order> {
        let orders = self.orders();
        let found = wait_until(&format!("order {name} to be {what}"), WAIT_TIMEOUT, || async {
            let order = orders.get_opt(name).await.map_err(|error| error.to_string())?.ok_or("there is no such order")?;
            if fulfills(&order) { Ok(order) } else { Err(format!("{:?}", order.status)) }
        })
        .await;
        found.with_context(|| self.stack.operators[0].process.output())
    }

    /// Waits until notify has the message of an order while the mail server is down. The order may be paid earlier.
    pub async fn wait_message_stored(&self, name: &str) -> Result<Order> {
        self.wait_order(name, "notified by a stored message", |order| reasons(order).contains(&"Delivering")).await
    }

    /// Waits until the archive has a deleted order, which is shortly after its deletion from Kubernetes, and returns the
    /// order as the public API shows it.
    pub async fn wait_archived(&self, id: i64) -> Result<Value> {
        wait_for("the order in the archive", WAIT_TIMEOUT, || async {
            let response = self.get(&format!("/orders/{id}")).await.ok()?;
            (response.status == 200).then(|| response.json())
        })
        .await
    }

    /// Waits until every order is decided and its message sent.
    pub async fn wait_settled(&self) -> Result<Vec<Order>> {
        wait_until("all orders to be decided and their messages sent", WAIT_TIMEOUT, || async {
            let orders = self.all_orders().await.map_err(|error| error.to_string())?;
            let is_settled =
                |order: &Order| order.outcome() != Outcome::Undecided && order.status.as_ref().is_some_and(|s| s.is_notified());
            match orders.iter().find(|order| !is_settled(order)) {
                Some(order) => Err(format!("{}: {:?}", order.name_any(), order.status)),
                None => Ok(orders),
            }
        })
        .await
    }
}

/// Whether notify or the mail server was slow for this order, so that there were more writes and messages.
pub fn was_notified_slowly(order: &Order) -> bool {
    let mut history = order.status.iter().flat_map(|status| &status.history);
    history.any(|entry| SLOW_NOTIFY.contains(&&*format!("{} {}", entry.action, entry.reason)))
}

/// The reasons of an order's conditions, in the conditions' order.
pub fn reasons(order: &Order) -> Vec<&str> {
    order.status.iter().flat_map(|status| &status.conditions).map(|condition| &*condition.reason).collect()
}

pub fn name(id: i64) -> String {
    format!("order-{id}")
}

#[allow(dead_code)]
pub fn uid(order: &Order) -> String {
    order.uid().unwrap_or_default()
}
