//! Tests of the chart on a real node, with the commands of the README.
//!
//! `make test-e2e` starts the node, loads the images and runs these tests. Each
//! test installs the chart if necessary, and does not uninstall it.

mod release;
mod templates;
mod upgrade;

use std::{fs, process::Command, time::Duration};

use anyhow::Result;
use futures::{StreamExt, stream};
use orders_crds::Outcome;
use orders_testbed::wait_for;
use release::{Release, TIMEOUT, repository, run};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn helm_test_and_the_postman_scenario_pass() -> Result<()> {
    let release = Release::install().await?;
    let output = run(release.command("helm").args(["test", "orders", "-n", "shop", "--logs", "--timeout", "3m"]))?;
    assert!(output.contains("1 order paid, 1 order refused"), "{output}");

    let newman = run(Command::new("make").arg("newman").current_dir(repository()))?;
    println!("{newman}");
    assert!(newman.contains("Заказ успешно оформлен"), "--verbose shows the bodies");
    let report = fs::read_to_string(repository().join("postman/report/index.html"))?;
    assert!(report.contains("Недостаточно средств"), "the HTML report shows them, too");

    // An environment of one's own, with variables of the same names.
    let own = "NEWMAN_ARGS=--env-var baseUrl=http://arch.homework/ --env-var login=somebody --env-var email=nobody";
    run(Command::new("make").args(["newman", own]).current_dir(repository()))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_orders_as_its_users_expect() -> Result<()> {
    let release = Release::install().await?;
    release.open_account("kubectl-user", 900).await?;
    // The order is created with kubectl only, and therefore has no id.
    let file = tempfile::NamedTempFile::new()?;
    let order = |name: &str, login: &str, amount: &str| {
        json!({"apiVersion": "arch.homework/v1", "kind": "Order", "metadata": {"name": name, "namespace": "shop"},
               "spec": {"login": login, "email": "user@example.com", "cartId": 7, "amount": amount}})
    };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        order("by-hand", "kubectl-user", "100.00"), order("too-dear", "kubectl-user", "1000"), order("nobody", "who-is-this", "5")]});
    fs::write(&file, list.to_string())?;
    release.kubectl(&["apply", "-f", &file.path().display().to_string()])?;
    release.kubectl(&["wait", "-n", "shop", "--for=condition=Succeeded", "order/by-hand", "--timeout=60s"])?;
    release.kubectl(&["wait", "-n", "shop", "--for=condition=Succeeded=False", "ord/too-dear", "ord/nobody", "--timeout=60s"])?;
    release.wait_settled("kubectl-user").await?;

    let table = release.kubectl(&["get", "orders", "-n", "shop"])?;
    println!("{table}");
    let row = |name: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap_or_default();
        line.split_whitespace().take(6).map(str::to_owned).collect()
    };
    assert_eq!(row("NAME"), ["NAME", "LOGIN", "AMOUNT", "STATUS", "BALANCE", "MAIL"]);
    assert_eq!(row("by-hand"), ["by-hand", "kubectl-user", "100.00", "Paid", "800.00", "Sent"]);
    assert_eq!(row("too-dear")[3], "InsufficientFunds");
    assert_eq!(row("nobody")[3], "AccountNotFound");

    let description = release.kubectl(&["describe", "ord", "by-hand", "-n", "shop"])?;
    println!("{description}");
    assert!(description.contains("Charged 100.00 to kubectl-user; the balance is now 800.00. E-mail sent."), "{description}");
    // Events are written after the status.
    wait_for("the Event of the refusal", TIMEOUT, || async {
        let refused = release.kubectl(&["describe", "ord", "too-dear", "-n", "shop"]).ok()?;
        refused.contains("Warning  InsufficientFunds").then_some(())
    })
    .await?;

    let explained = release.kubectl(&["explain", "order.spec.amount", "--api-version=arch.homework/v1"])?;
    assert!(explained.contains("at most two places"), "{explained}");
    let selected = release.kubectl(&["get", "ord", "-n", "shop", "--field-selector", "spec.login=who-is-this", "-o", "name"])?;
    assert_eq!(selected.trim(), "order.arch.homework/nobody");

    let changed =
        release.kubectl(&["patch", "ord", "by-hand", "-n", "shop", "--type=merge", "-p", r#"{"spec":{"amount":"1.00"}}"#]);
    assert!(changed.is_err_and(|error| error.to_string().contains("immutable")), "a spec cannot be edited");
    release.kubectl(&["delete", "-n", "shop", "ord/by-hand", "ord/too-dear", "ord/nobody", "--timeout=60s"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_account_has_more_permissions_than_it_needs() -> Result<()> {
    let release = Release::install().await?;
    for (account, verb, resource, allowed) in [
        ("operator", "patch", "orders.arch.homework/status", true),
        ("operator", "update", "orders.arch.homework", false),
        ("operator", "delete", "orders.arch.homework", true),
        ("operator", "deletecollection", "orders.arch.homework", false),
        ("operator", "create", "orders.arch.homework", false),
        ("operator", "patch", "customers.arch.homework/status", true),
        ("operator", "patch", "customers.arch.homework", false),
        ("operator", "delete", "customers.arch.homework", false),
        ("operator", "get", "secrets", false),
        ("api-server", "create", "orders.arch.homework", true),
        ("api-server", "patch", "orders.arch.homework", true),
        ("api-server", "patch", "orders.arch.homework/status", false),
        ("api-server", "delete", "orders.arch.homework", false),
        ("api-server", "create", "customers.arch.homework", true),
        ("api-server", "patch", "customers.arch.homework/status", false),
        ("api-server", "delete", "customers.arch.homework", false),
        ("billing", "get", "orders.arch.homework", false),
        ("billing", "create", "tokenreviews.authentication.k8s.io", true),
        ("notify", "get", "orders.arch.homework", false),
        ("notify", "create", "tokenreviews.authentication.k8s.io", true),
        ("archive", "get", "orders.arch.homework", false),
        ("archive", "create", "tokenreviews.authentication.k8s.io", true),
    ] {
        assert_eq!(release.can(account, verb, resource), allowed, "{account} {verb} {resource}");
    }
    // The internal APIs of the services are not reachable from outside.
    release.open_account("outsider", 100).await?;
    let (status, _) = release.call(Method::POST, "/billing/withdraw", Some(json!({"login": "outsider", "balance": 50}))).await?;
    assert!([401, 403, 404].contains(&status), "{status}");
    let message = json!({"login": "outsider", "email": "a@b.cd", "text": "hello"});
    let (status, _) = release.call(Method::POST, "/notify", Some(message)).await?;
    assert!([401, 403, 404].contains(&status), "{status}");
    assert_eq!(release.balance("outsider").await?, 100.0);
    let (_, messages) = release.call(Method::GET, "/notify/log/outsider", None).await?;
    assert_eq!(messages, json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_and_a_killed_pod_of_each_service_lose_no_order_and_charge_none_twice() -> Result<()> {
    let release = Release::install().await?;
    release.open_account("steady", 10_000).await?;
    let keys: Vec<String> = (0..60).map(|number| format!("steady-{number}")).collect();
    let orders = stream::iter(&keys)
        .map(|key| release.place_order_with_retries("steady", 10, key))
        .buffer_unordered(3)
        .collect::<Vec<_>>();
    let disruptions = async {
        tokio::task::block_in_place(|| release.upgrade(&["--set", "log.level=debug"]))?;
        for component in ["operator", "api-server", "billing", "notify"] {
            let selector = format!("app.kubernetes.io/component={component}");
            let pods = release.kubectl(&["get", "pods", "-n", "shop", "-l", &selector, "-o", "name"])?;
            let pod = pods.lines().next().unwrap_or_default().to_owned();
            tokio::task::block_in_place(|| release.kubectl(&["delete", "-n", "shop", &pod, "--grace-period=0", "--force"]))?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        anyhow::Ok(())
    };
    let (responses, disruption_result) = tokio::time::timeout(TIMEOUT * 2, async { tokio::join!(orders, disruptions) }).await?;
    disruption_result?;
    for response in responses {
        assert_eq!(response?, 200);
    }
    let settled = release.wait_settled("steady").await?;
    assert_eq!(settled.len(), 60, "one resource for each key");
    assert!(settled.iter().all(|order| order.outcome() == Outcome::Paid));
    assert_eq!(release.balance("steady").await?, 10_000.0 - 600.0, "each charged once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_style_of_interaction_passes_the_postman_scenario_and_finishes_the_orders_of_the_previous_style() -> Result<()> {
    let release = Release::install().await?;
    release.open_account("styles", 10_000).await?;
    let mut placed = 0;
    for style in ["broker", "notify-broker", "http"] {
        let keys: Vec<String> = (0..30).map(|number| format!("before-{style}-{number}")).collect();
        let orders = stream::iter(&keys)
            .map(|key| release.place_order_with_retries("styles", 10, key))
            .buffer_unordered(3)
            .collect::<Vec<_>>();
        let upgrade = async { tokio::task::block_in_place(|| release.upgrade(&["--set", &format!("interaction={style}")])) };
        let (responses, upgraded) = tokio::time::timeout(TIMEOUT * 2, async { tokio::join!(orders, upgrade) }).await?;
        upgraded?;
        for response in responses {
            assert_eq!(response?, 200, "{style}");
        }
        placed += keys.len();
        let settled = release.wait_settled("styles").await?;
        assert_eq!(settled.len(), placed, "one resource for each key, {style}");
        assert!(settled.iter().all(|order| order.outcome() == Outcome::Paid), "{style}");
        assert_eq!(release.balance("styles").await?, 10_000.0 - 10.0 * placed as f64, "each charged once, {style}");

        let newman = run(Command::new("make").arg("newman").current_dir(repository()))?;
        assert!(newman.contains("Заказ успешно оформлен"), "{style}: {newman}");

        let letters = release.kubectl_orders(&["dead-letters", "list", "-n", "shop"])?;
        let replayed = release.kubectl_orders(&["dead-letters", "replay", "--all", "-n", "shop"])?;
        if style == "http" {
            assert_eq!(letters.exit_code, Some(1), "there is no broker: {letters:?}");
            continue;
        }
        assert_eq!((letters.exit_code, &*letters.out), (Some(0), "0 dead letters\n"), "{style}: {letters:?}");
        assert_eq!((replayed.exit_code, &*replayed.out), (Some(0), "0 replayed\n"), "{style}: {replayed:?}");
        let remaining = "app.kubernetes.io/component=dead-letters";
        let remaining = release.kubectl(&["get", "jobs", "-n", "shop", "-l", remaining, "-o", "name"])?;
        assert_eq!(remaining.trim(), "", "it deletes the Jobs that it created");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_job_proves_that_the_money_adds_up() -> Result<()> {
    let release = Release::install().await?;
    release.open_account("audited", 100).await?;
    assert_eq!(release.place_order_with_retries("audited", 60, "audited-1").await?, 200);
    assert_eq!(release.place_order_with_retries("audited", 60, "audited-2").await?, 400);
    release.wait_settled("audited").await?;
    // Paid orders that other tests deleted are in the archive, so that each charge has an order.
    let result = release.kubectl_orders(&["audit", "-n", "shop"])?;
    println!("{result:?}");
    assert_eq!(result.exit_code, Some(0), "{result:?}");
    for line in [
        "ok   all postings sum to zero",
        "ok   every balance is",
        "ok   each paid order",
        "ok   each charge of a refused order",
        "ok   each notified order",
        "No violations.",
    ] {
        assert!(result.out.contains(line), "{result:?}");
    }
    assert!(result.error.starts_with("waiting for job orders-audit-"), "{result:?}");

    let result = release.kubectl_orders(&["audit", "-n", "shop", "-o", "json"])?;
    assert_eq!(result.exit_code, Some(0), "{result:?}");
    let report: Value = serde_json::from_str(&result.out)?;
    assert_eq!((&report["holds"], &report["violations"]), (&json!(true), &json!([])), "{report}");
    assert!(report["orders"].as_u64().is_some_and(|orders| orders >= 2), "{report}");
    let remaining = release.kubectl(&["get", "jobs", "-n", "shop", "-l", "app.kubernetes.io/component=audit", "-o", "name"])?;
    assert_eq!(remaining.trim(), "", "it deletes the objects that it created");

    let missing = release.kubectl_orders(&["audit", "-n", "kube-public"])?;
    assert_eq!((missing.exit_code, &*missing.out), (Some(2), ""), "{missing:?}");
    assert!(missing.error.contains("there is no audit in namespace kube-public"), "{missing:?}");
    Ok(())
}

/// Runs the audit without `kubectl orders`, with the commands of the chart's notes.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_runs_on_demand_with_kubectl_only() -> Result<()> {
    let release = Release::install().await?;
    release.kubectl(&["delete", "job", "-n", "shop", "audit-by-hand", "--ignore-not-found"])?;
    release.kubectl(&["create", "job", "-n", "shop", "--from=cronjob/orders-audit", "audit-by-hand"])?;
    release.kubectl(&["wait", "-n", "shop", "--for=condition=Complete", "job/audit-by-hand", "--timeout=120s"])?;
    let output = release.kubectl(&["logs", "-n", "shop", "job/audit-by-hand"])?;
    assert!(output.ends_with("No violations.\n"), "{output}");
    release.kubectl(&["delete", "job", "-n", "shop", "audit-by-hand"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstalling_keeps_orders_and_balances_and_a_new_installation_continues_with_them() -> Result<()> {
    let release = Release::install().await?;
    release.open_account("keeper", 500).await?;
    assert_eq!(release.place_order_with_retries("keeper", 100, "keep-me").await?, 200);
    release.wait_settled("keeper").await?;

    run(release.command("helm").args(["uninstall", "orders", "-n", "shop", "--wait", "--timeout", "3m"]))?;
    assert_eq!(release.orders_of("keeper").await?.len(), 1, "the order is still there");
    let remaining = release.kubectl(&[
        "get",
        "deployments,services,roles,secrets",
        "-n",
        "shop",
        "-l",
        "app.kubernetes.io/name=orders",
        "-o",
        "name",
    ])?;
    assert_eq!(remaining.trim(), "", "no other object of the release is left");

    let release = Release::install().await?;
    assert_eq!(release.balance("keeper").await?, 400.0);
    assert_eq!(release.place_order_with_retries("keeper", 100, "keep-me").await?, 200, "the same key is still the same order");
    assert_eq!(release.balance("keeper").await?, 400.0);
    Ok(())
}
