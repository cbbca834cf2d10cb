//! Tests of `kubectl orders`: its output, and its effects on orders and money.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};
use kube::{
    api::{DeleteParams, PostParams},
    config::Kubeconfig,
};
use orders_crds::{Order, OrderSpec};
use orders_testbed::{Cluster, binary, wait_for};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::shop::{SLOW_NOTIFY, Shop, WAIT_TIMEOUT, name};

/// The result of a run of the program.
#[derive(Debug)]
struct ProgramResult {
    exit_code: Option<i32>,
    out: String,
    error: String,
}

impl ProgramResult {
    /// The cells of a line of the table.
    fn cells(&self, line: usize) -> Vec<&str> {
        self.out.lines().nth(line).unwrap_or_default().split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
    }

    #[track_caller]
    fn assert_output(&self, text: &str) {
        assert_eq!((self.exit_code, &*self.out, &*self.error), (Some(0), text, ""));
    }

    #[track_caller]
    fn assert_failed(&self, exit_code: i32, error: &str) {
        assert_eq!((self.exit_code, &*self.out), (Some(exit_code), ""), "{self:?}");
        assert!(self.error.contains(error), "{self:?}");
    }
}

fn command(shop: &Shop, line: &str) -> Result<Command> {
    let mut command = Command::new(binary("kubectl-orders")?);
    // With --server, the program must not need a kubeconfig.
    command.args(line.split(' ')).args(["--server", &shop.stack.api_server.url]).env("KUBECONFIG", "/nowhere");
    Ok(command)
}

/// Runs `kubectl orders LINE`.
fn orders(shop: &Shop, line: &str) -> Result<ProgramResult> {
    let output = command(shop, line)?.output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(ProgramResult { exit_code: output.status.code(), out: text(&output.stdout), error: text(&output.stderr) })
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_orders_lists_shows_cancels_and_retries() -> Result<()> {
    let shop = Shop::start().await?;
    let none = orders(&shop, "list")?;
    assert_eq!((none.exit_code, &*none.out, &*none.error), (Some(0), "", "No orders found.\n"));
    shop.open_account("vera", json!(150)).await?;
    shop.open_account("nina", json!(50)).await?;
    let (paid, refused) = (shop.place_order("vera", json!(100)).await?.id(), shop.place_order("vera", json!(99.95)).await?.id());
    let other = shop.place_order("nina", json!(10)).await?.id();
    shop.wait_settled().await?;
    // A list shows a new order after a short time.
    let listed = wait_for("three orders in the list", WAIT_TIMEOUT, || async {
        orders(&shop, "list").ok().filter(|listed| listed.out.lines().count() == 4)
    })
    .await?;
    assert_eq!((listed.exit_code, &*listed.error), (Some(0), ""));
    assert_eq!(listed.cells(0), ["ID", "LOGIN", "AMOUNT", "STATUS", "BALANCE", "MAIL", "AGE"]);
    let mut logins: Vec<&str> = (1..4).map(|line| listed.cells(line)[1]).collect();
    logins.sort_unstable();
    assert_eq!(logins, ["nina", "vera", "vera"]);

    let one = orders(&shop, &format!("get {paid}"))?;
    assert_eq!(one.cells(1)[..6], [&*paid.to_string(), "vera", "100.00", "Paid", "50.00", "Sent"], "{one:?}");
    let filtered = orders(&shop, "list --login vera --state InsufficientFunds --no-headers -o wide")?;
    assert_eq!(
        [&filtered.cells(0)[..6], &filtered.cells(0)[7..]].concat(),
        [
            &*refused.to_string(),
            "vera",
            "99.95",
            "InsufficientFunds",
            "50.00",
            "Sent",
            &name(refused),
            "1",
            "<none>",
            "vera@example.com"
        ],
        "{filtered:?}"
    );
    assert_eq!(filtered.out.lines().count(), 1, "{filtered:?}");
    let limited = orders(&shop, "list --limit 1 -o name")?;
    assert_eq!((limited.exit_code, limited.out.lines().count()), (Some(0), 1), "{limited:?}");
    assert!(limited.error.contains("more than 1 orders"), "{limited:?}");
    orders(&shop, &format!("get {other} -o name"))?.assert_output(&format!("order.arch.homework/{}\n", name(other)));

    orders(&shop, &format!("cancel {paid}"))?.assert_output(&format!("order {paid} cancelled (Refunded)\n"));
    assert_eq!(shop.balance("vera").await?, "150.0", "the charge was refunded");
    orders(&shop, &format!("retry {refused}"))?.assert_output(&format!("order {refused} charged (Paid)\n"));
    assert_eq!(shop.balance("vera").await?, "50.05");
    shop.wait_settled().await?;

    let history = orders(&shop, &format!("history {refused}"))?;
    assert_eq!(history.cells(0), ["TIME", "ACTION", "REASON", "MESSAGE"]);
    let entries = 1..history.out.lines().count() - 1;
    let actions: Vec<String> = entries.map(|line| history.cells(line)[1..3].join(" ")).collect();
    let expected = ["Charge InsufficientFunds", "Notify Sent", "Charge Paid", "Notify Sent"];
    let is_ignored = |action: &str| action.starts_with("Retry") || SLOW_NOTIFY.contains(&action);
    assert_eq!(actions.iter().filter(|action| !is_ignored(action)).collect::<Vec<_>>(), expected, "{history:?}");
    let history_of_refunded = orders(&shop, &format!("history {paid}"))?;
    assert!(history_of_refunded.out.ends_with("charge of 100.00: Captured, 100.00 refunded\n"), "{history_of_refunded:?}");
    wait_for("the capture in the history", WAIT_TIMEOUT, || async {
        let history = orders(&shop, &format!("history {refused}")).ok()?;
        history.out.ends_with("charge of 99.95: Captured\n").then_some(())
    })
    .await?;

    let shown = shop.get(&format!("/orders/{refused}")).await?.json();
    let as_json: Value = serde_json::from_str(&orders(&shop, &format!("get {refused} -o json"))?.out)?;
    assert_eq!(as_json, shown);
    let as_yaml: Value = serde_saphyr::from_str(&orders(&shop, &format!("get order-{refused} -o yaml"))?.out)?;
    assert_eq!(as_yaml, shown);
    let list: Value = serde_json::from_str(&orders(&shop, "list -o json --login nina")?.out)?;
    assert_eq!(list["items"][0]["id"], other, "{list}");
    let none: Value = serde_saphyr::from_str(&orders(&shop, "list -o yaml --to 2020-01-01T00:00:00Z")?.out)?;
    assert_eq!(none, json!({"items": []}));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_orders_prints_the_reason_of_a_failure_and_exits_with_1() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("olaf", json!(500)).await?;
    let id = shop.place_order("olaf", json!(100)).await?.id();
    let detail = |response: crate::shop::Response| response.json()["detail"].as_str().unwrap_or_default().to_owned();
    let unknown = detail(shop.get("/orders/4711").await?);
    for line in ["get 4711", "cancel 4711", "retry 4711", "resend 4711", "history 4711", "get 4711 --watch"] {
        orders(&shop, line)?.assert_failed(1, &format!("error: {unknown}\n"));
    }
    let some = orders(&shop, &format!("get 4711 {id} --no-headers"))?;
    assert_eq!((some.exit_code, some.cells(0)[1], &*some.error), (Some(1), "olaf", &*format!("error: {unknown}\n")));
    let conflict = detail(shop.send(shop.request(Method::POST, &format!("/orders/{id}/retry"))).await?);
    orders(&shop, &format!("retry {id}"))?.assert_failed(1, &format!("error: {conflict}\n"));
    orders(&shop, "list --state Payed")?.assert_failed(1, "error: state: must be a reason");
    for line in ["get", "get X", "cancel 0", "list --limit 0", "list --from yesterday", "list -o xml", "pay 14"] {
        orders(&shop, line)?.assert_failed(2, "--help");
    }
    assert_eq!(shop.balance("olaf").await?, "400.0");

    let nobody = Command::new(binary("kubectl-orders")?).args(["list", "--server", "http://127.0.0.1:1"]).output()?;
    let error = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(error.contains("Connection refused"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_orders_reports_an_unknown_outcome_and_watches_changes() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("wanda", json!(500)).await?;
    shop.stack.billing.kill()?;
    let id = shop.send(shop.order_request("wanda", json!(100)).header("prefer", "wait=0")).await?.id();
    shop.wait_order(&name(id), "shown as unknown", |order| crate::shop::reasons(order).contains(&"PaymentUnknown")).await?;

    let mut watching = tokio::process::Command::from(command(&shop, &format!("get {id} --watch"))?)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(watching.stdout.take().context("standard output")?).lines();
    let headers = timeout(WAIT_TIMEOUT, lines.next_line()).await??.context("headers")?;
    let before = timeout(WAIT_TIMEOUT, lines.next_line()).await??.context("a row")?;
    assert!(headers.starts_with("ID ") && before.contains("Processing"), "{headers}\n{before}");

    orders(&shop, &format!("cancel {id}"))?.assert_output(&format!("order {id}: asked for; not done yet\n"));
    shop.stack.billing.restart().await?;
    let decided = async {
        while let Some(row) = lines.next_line().await? {
            if row.contains("Cancelled") || row.contains("Refunded") {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    timeout(WAIT_TIMEOUT, decided).await.context("the watch does not show the outcome")??;
    assert_eq!(shop.balance("wanda").await?, "500.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_kubectl_is_shown_and_cancelled_by_its_name() -> Result<()> {
    let shop = Shop::start().await?;
    shop.open_account("tom", json!(500)).await?;
    let spec = OrderSpec { login: "tom".into(), email: "tom@example.com".into(), amount: "100".into(), ..OrderSpec::default() };
    shop.orders().create(&PostParams::default(), &Order::new("by-hand", spec)).await?;
    shop.wait_settled().await?;
    let shown = orders(&shop, "get by-hand --no-headers -o wide")?;
    assert_eq!((shown.cells(0)[0], shown.cells(0)[3], shown.cells(0)[7]), ("<none>", "Paid", "by-hand"), "{shown:?}");
    assert_eq!(shop.get("/orders/by-hand").await?.json()["name"], "by-hand");
    let history = orders(&shop, "history ord/by-hand")?;
    assert!(history.out.contains("charge of 100.00: "), "{history:?}");
    orders(&shop, "cancel order.arch.homework/by-hand")?.assert_output("order by-hand cancelled (Refunded)\n");
    assert_eq!(shop.balance("tom").await?, "500.0");
    // In the archive too.
    shop.orders().delete("by-hand", &DeleteParams::default()).await?;
    wait_for("the archived order", WAIT_TIMEOUT, || async {
        let shown = orders(&shop, "get by-hand --no-headers").ok()?;
        (shown.exit_code == Some(0)).then_some(())
    })
    .await?;
    orders(&shop, "get by-nobody")?.assert_failed(1, "error: there is no order with this id\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn stuck_orders_show_their_step_attempts_and_error() -> Result<()> {
    let mut shop = Shop::start().await?;
    shop.open_account("stan", json!(500)).await?;
    let kubeconfig = Cluster::control_plane().await?.kubeconfig;
    let namespace = shop.stack.namespace.clone();
    let stuck = |line: &str| in_kubernetes(&kubeconfig.display().to_string(), &format!("stuck {line}"), &[]);
    let none = stuck(&format!("-n {namespace}"))?;
    assert_eq!((none.exit_code, &*none.out, &*none.error), (Some(0), "", "No orders are stuck.\n"));

    shop.stack.billing.kill()?;
    let id = shop.send(shop.order_request("stan", json!(100)).header("prefer", "respond-async")).await?.id();
    let is_retried =
        |order: &Order| order.status.as_ref().and_then(|status| status.retry.as_ref()).is_some_and(|r| r.attempts > 1);
    shop.wait_order(&name(id), "tried twice", is_retried).await?;
    let shown = stuck(&format!("-n {namespace}"))?;
    assert_eq!(shown.cells(0), ["NAME", "STEP", "ATTEMPTS", "NEXT", "LAST ERROR"], "{shown:?}");
    assert_eq!(shown.cells(1)[..2], [&*name(id), "Payment"], "{shown:?}");
    assert!(shown.cells(1)[2].parse::<i32>()? > 1 && shown.cells(1)[4].contains("billing"), "{shown:?}");
    assert!(stuck("-A")?.out.contains(&namespace));
    assert_eq!(stuck(&format!("-n {namespace} -o name"))?.out, format!("order.arch.homework/{}\n", name(id)));
    orders(&shop, "stuck")?.assert_failed(1, "do not set --server");

    shop.stack.billing.restart().await?;
    shop.wait_settled().await?;
    assert_eq!(stuck(&format!("-n {namespace} --no-headers"))?.out, "");
    Ok(())
}

/// Runs `kubectl orders LINE` with this KUBECONFIG and these variables.
fn in_kubernetes(kubeconfig: &str, line: &str, variables: &[(&str, &str)]) -> Result<ProgramResult> {
    let mut command = Command::new(binary("kubectl-orders")?);
    command.args(line.split_whitespace()).env("KUBECONFIG", kubeconfig).env_remove("ORDERS_SERVER");
    for name in ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(ProgramResult { exit_code: output.status.code(), out: text(&output.stdout), error: text(&output.stderr) })
}

/// An HTTP proxy that connects to a port of this machine whatever host a client asks for. Returns its address, and counts the
/// connections.
async fn start_http_proxy(target: u16) -> Result<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let connections = Arc::<AtomicUsize>::default();
    let counter = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(client.read_u8().await?);
                }
                let mut server = TcpStream::connect(("127.0.0.1", target)).await?;
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok((address, connections))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_reached_through_the_proxy_that_kubectl_would_use() -> Result<()> {
    let shop = Shop::start().await?;
    let directory = tempfile::tempdir()?;
    let original = Kubeconfig::read_from(Cluster::control_plane().await?.kubeconfig)?;
    let server = original.clusters[0].cluster.as_ref().and_then(|cluster| cluster.server.clone()).context("a server")?;
    let port = server.rsplit(':').next().context("a port")?.parse()?;
    let (proxy, connections) = start_http_proxy(port).await?;
    // Only the proxy knows this host.
    let remote = "https://cluster.invalid:6443";
    let write = |name: &str, server: &str, proxy_url: Option<String>| -> Result<String> {
        let mut kubeconfig = original.clone();
        let cluster = kubeconfig.clusters[0].cluster.as_mut().context("a cluster")?;
        cluster.server = Some(server.to_owned());
        cluster.tls_server_name = Some("127.0.0.1".to_owned());
        cluster.proxy_url = proxy_url;
        let file = directory.path().join(name);
        std::fs::write(&file, serde_json::to_string(&kubeconfig)?)?;
        Ok(file.display().to_string())
    };
    let line = format!("stuck -n {}", shop.stack.namespace);
    let count = || connections.swap(0, Ordering::SeqCst);

    let of_environment = write("environment", remote, None)?;
    let variables = [("HTTPS_PROXY", &*proxy)];
    let through = in_kubernetes(&of_environment, &line, &variables)?;
    assert_eq!((through.exit_code, &*through.error), (Some(0), "No orders are stuck.\n"));
    assert!(count() > 0);
    for no_proxy in ["cluster.invalid", ".invalid", "*"] {
        let direct = in_kubernetes(&of_environment, &line, &[variables[0], ("NO_PROXY", no_proxy)])?;
        assert_eq!((direct.exit_code, count()), (Some(1), 0), "{no_proxy}: {direct:?}");
    }

    // A list of files, of which one does not exist. NO_PROXY does not concern the proxy-url.
    let of_kubeconfig = write("proxy-url", remote, Some(format!("http://{proxy}")))?;
    let list = format!("{}/none:{of_kubeconfig}", directory.path().display());
    let through = in_kubernetes(&list, &line, &[("NO_PROXY", "*")])?;
    assert_eq!((through.exit_code, &*through.error), (Some(0), "No orders are stuck.\n"));
    assert!(count() > 0);

    // This machine is reached directly.
    let local = write("local", &server, None)?;
    let direct = in_kubernetes(&local, &line, &variables)?;
    assert_eq!((direct.exit_code, count()), (Some(0), 0), "{direct:?}");
    let wrong = in_kubernetes(&of_environment, &line, &[("HTTPS_PROXY", "ftp://proxy")])?;
    wrong.assert_failed(1, "HTTPS_PROXY: must be the URL of a proxy");
    Ok(())
}
