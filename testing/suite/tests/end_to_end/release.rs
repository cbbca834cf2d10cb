//! A release of the chart on the node, and the commands of a user.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kube::{Api, Client, api::ListParams};
use orders_crds::{Order, Outcome};
use orders_testbed::{Cache, Cluster, binary, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

/// The time limit for a rollout, and for orders to settle, on two busy cores.
pub const TIMEOUT: Duration = Duration::from_secs(180);

/// The URL of the service in the README.
pub const BASE_URL: &str = "http://arch.homework";

/// A release of the chart in the namespace of the README.
pub struct Release {
    pub client: Client,
    pub http: reqwest::Client,
    kubeconfig: PathBuf,
    programs: PathBuf,
}

pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

impl Release {
    /// The release on the node, in whatever state it is.
    pub async fn connect() -> Result<Self> {
        let cluster = Cluster::node().await.context("the node does not run: run `make test-e2e`")?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(90)).build()?;
        Ok(Release {
            client: cluster.client().await?,
            http,
            kubeconfig: cluster.kubeconfig.clone(),
            programs: Cache::locate()?.current_bin(),
        })
    }

    /// Installs the chart of this checkout, or upgrades to it, and waits until the service responds.
    pub async fn install() -> Result<Self> {
        let release = Self::connect().await?;
        release.upgrade(&[])?;
        release.expose()?;
        Ok(release)
    }

    /// Forwards the host name and port of the README to the Service, as `make demo` does.
    pub fn expose(&self) -> Result<()> {
        run(Command::new(binary("testbed")?).args(["expose", "--namespace", "shop"])).map(drop)
    }

    /// Runs `helm upgrade --install` with this checkout's chart and these additional arguments.
    pub fn upgrade(&self, arguments: &[&str]) -> Result<String> {
        self.upgrade_to(repository(), "testbed", arguments)
    }

    /// Runs `helm upgrade --install` with another checkout's chart and the images with this tag.
    pub fn upgrade_to(&self, checkout: &Path, tag: &str, arguments: &[&str]) -> Result<String> {
        let mut helm = self.command("helm");
        helm.args(["upgrade", "--install", "orders"]).arg(checkout.join("helm/orders"));
        helm.args(["--namespace", "shop", "--create-namespace", "--set", "image.registry=localhost"]);
        helm.args(["--set", &format!("image.tag={tag}"), "--set", "image.pullPolicy=Never"]);
        if std::env::var("CLUSTER").as_deref() != Ok("kind") {
            helm.args(["--set", "nats.server.image.repository=localhost/orders-nats", "--set", "nats.server.image.tag=testbed"]);
        }
        run(helm.args(["--wait", "--timeout", "5m"]).args(arguments)).inspect_err(|_| self.print_diagnostics())
    }

    /// Prints diagnostic information for the log of a failed run.
    fn print_diagnostics(&self) {
        for arguments in [
            &["get", "pods,pvc,events", "-n", "shop"][..],
            &["logs", "-n", "shop", "--all-containers", "--tail=20", "-l", "app.kubernetes.io/name=orders", "--prefix"],
        ] {
            match self.kubectl(arguments) {
                Ok(text) => eprintln!("{text}"),
                Err(error) => eprintln!("{error:#}"),
            }
        }
    }

    /// A command that runs a program of the cluster's version with this cluster's kubeconfig.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(self.command("kubectl").args(arguments))
    }

    /// Runs `kubectl orders`, and returns its result even if it fails.
    pub fn kubectl_orders(&self, arguments: &[&str]) -> Result<ProgramResult> {
        let output = Command::new(binary("kubectl-orders")?).args(arguments).env("KUBECONFIG", &self.kubeconfig).output()?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(ProgramResult { exit_code: output.status.code(), out: text(&output.stdout), error: text(&output.stderr) })
    }

    /// Whether the service account has this permission, according to `kubectl auth can-i`.
    pub fn can(&self, account: &str, verb: &str, resource: &str) -> bool {
        let user = format!("--as=system:serviceaccount:shop:orders-{account}");
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        self.kubectl(&["auth", "can-i", verb, resource, "--subresource", subresource, "-n", "shop", &user]).is_ok()
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        let mut request = self.http.request(method.clone(), format!("{BASE_URL}{path}"));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.with_context(|| format!("{method} {path}"))?;
        Ok((response.status().as_u16(), response.json().await.unwrap_or(Value::Null)))
    }

    /// Opens an account and pays money in. Each call has a key and is repeated while the response is 503 or 504, as
    /// that status requires: right after an installation, the node's network may not know the new pods yet.
    pub async fn open_account(&self, login: &str, balance: i64) -> Result<()> {
        let register = self.http.post(format!("{BASE_URL}/billing/register?login={login}"));
        let refill = self.http.post(format!("{BASE_URL}/billing/refill")).json(&json!({"login": login, "balance": balance}));
        for (call, key) in [(register, format!("register-{login}")), (refill, format!("refill-{login}"))] {
            let (status, response) = wait_for(&format!("a response to {key}"), TIMEOUT, || async {
                let response = call.try_clone()?.header("idempotency-key", &key).send().await.ok()?;
                let status = response.status().as_u16();
                (![503, 504].contains(&status)).then_some((status, response.text().await.unwrap_or_default()))
            })
            .await?;
            ensure!(status == 200, "{key}: {status} {response}");
        }
        Ok(())
    }

    /// Places an order with a key, and repeats the request until the response is
    /// definite, as a careful client does when pods are deleted.
    pub async fn place_order_with_retries(&self, login: &str, amount: i64, key: &str) -> Result<u16> {
        let order = json!({"login": login, "e_mail": format!("{login}@example.com"), "id_cart": 1, "amount": amount});
        wait_for(&format!("an outcome of order {key}"), TIMEOUT, || async {
            let request = self.http.post(format!("{BASE_URL}/orders/")).header("idempotency-key", key).json(&order);
            let status = request.send().await.ok()?.status().as_u16();
            (status == 200 || status == 400).then_some(status)
        })
        .await
    }

    pub async fn balance(&self, login: &str) -> Result<f64> {
        wait_for("the balance of the account", TIMEOUT, || async {
            let (status, account) = self.call(Method::GET, &format!("/billing/account/{login}"), None).await.ok()?;
            account["balance"].as_f64().filter(|_| status == 200)
        })
        .await
    }

    pub async fn orders_of(&self, login: &str) -> Result<Vec<Order>> {
        let orders: Api<Order> = Api::namespaced(self.client.clone(), "shop");
        Ok(orders.list(&ListParams::default().fields(&format!("spec.login={login}"))).await?.items)
    }

    /// Waits until each of the customer's orders is decided and the customer is notified.
    pub async fn wait_settled(&self, login: &str) -> Result<Vec<Order>> {
        wait_for(&format!("all orders of {login} to be decided and their customers notified"), TIMEOUT, || async {
            let orders = self.orders_of(login).await.ok()?;
            let is_settled =
                |order: &Order| order.outcome() != Outcome::Undecided && order.status.as_ref().is_some_and(|s| s.is_notified());
            orders.iter().all(is_settled).then_some(orders)
        })
        .await
    }
}

/// The result of a run of a program.
#[derive(Debug)]
pub struct ProgramResult {
    pub exit_code: Option<i32>,
    pub out: String,
    pub error: String,
}

/// Runs a command to completion. Returns its output, or an error with its complete output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{command:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    Ok(text(&output.stdout))
}
