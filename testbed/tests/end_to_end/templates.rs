//! The chart's templates: what its values may be, and what must hold in every
//! rendering.

use std::process::Command;

use anyhow::Result;
use orders_testbed::Cache;
use serde_json::Value;

use crate::release::repository;

/// Renders the chart with these arguments, or gives helm's error.
fn render(arguments: &str) -> Result<Result<String, String>> {
    let mut helm = Command::new(Cache::locate()?.current_bin().join("helm"));
    helm.args(["template", "orders"]).arg(repository().join("helm/orders")).args(["--namespace", "shop"]);
    let output = helm.args(arguments.split_whitespace()).output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

#[test]
fn values_that_make_sense_render() -> Result<()> {
    for arguments in [
        "",
        "--set inbox.enabled=true",
        "--set inbox.enabled=null",
        "--set smtp.url=smtp://u:p@mail.example.com:2525",
        "--set smtp.existingSecret=mail",
        "--set smtp.existingSecret=mail --set inbox.enabled=false",
        "--set billing.replicas=2 --set billing.database.existingSecret=db --set notify.replicas=2 --set notify.database.url=postgres://u:p@db:5433/n",
        "--set billing.persistence.enabled=false,notify.persistence.existingClaim=n",
        "--set operator.allNamespaces=true",
        "--set crds.enabled=false",
        "--set crds.keep=false",
        "--set rbac.create=false,rbac.aggregateRoles=false",
        "--set networkPolicy.enabled=false",
        "--set audit.enabled=true",
        "--set ingress.enabled=true,ingress.className=nginx,ingress.tls.enabled=true",
        "--set image.registry=localhost --set image.tag=testbed --set image.pullPolicy=Never",
        "--set apiServer.service.type=NodePort,apiServer.service.nodePort=30080,apiServer.service.port=8000",
        "--set metrics.annotations=false --set apiServer.replicas=1",
    ] {
        assert!(render(arguments)?.is_ok(), "{arguments}: {:?}", render(arguments)?);
    }
    Ok(())
}

#[test]
fn values_that_do_not_are_refused_with_a_reason() -> Result<()> {
    for (arguments, reason) in [
        ("--set inbox.enabled=false", "no way to send mail"),
        ("--set inbox.enabled=true --set smtp.url=smtp://mail", "keep one of them"),
        ("--set smtp.existingSecret=m --set smtp.url=smtp://mail", "keep one of them"),
        ("--set smtp.url=mail.example.com", "smtp/url"),
        ("--set billing.replicas=2", "billing.replicas is 2"),
        ("--set notify.replicas=3", "notify.replicas is 3"),
        ("--set billing.database.existingSecret=db --set billing.database.url=postgres://u:p@db/n", "keep one of them"),
        ("--set billing.database.url=sqlite:///var/b.db", "under /data"),
        ("--set billing.database.url=mysql://x", "database/url"),
        ("--set billing.replica=2", "'replica' not allowed"),
        ("--set foo=1", "'foo' not allowed"),
        ("--set image.pullPolicy=Sometimes", "pullPolicy"),
        ("--set apiServer.replicas=two", "replicas"),
        ("--set apiServer.replicas=-1", "replicas"),
        ("--kube-version 1.31.0", "kubeVersion"),
    ] {
        let error = render(arguments)?.expect_err(arguments);
        assert!(error.contains(reason), "{arguments}: {error}");
    }
    Ok(())
}

/// Every object of a rendering.
fn objects(rendered: &str) -> Vec<Value> {
    let documents = rendered.split("\n---\n").filter(|text| text.contains("kind:"));
    documents.map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

#[test]
fn roles_name_what_they_allow_and_only_the_operator_writes_status() -> Result<()> {
    for arguments in ["", "--set operator.allNamespaces=true"] {
        let objects = objects(&render(arguments)?.expect("it renders"));
        let mut writers = Vec::new();
        for role in of_kind(&objects, "Role").chain(of_kind(&objects, "ClusterRole")) {
            for rule in role["rules"].as_array().into_iter().flatten() {
                assert!(!rule.to_string().contains("\"*\""), "a wildcard in {role}");
                let has = |list: &str, word: &str| rule[list].as_array().is_some_and(|words| words.iter().any(|w| w == word));
                if has("resources", "orders/status") && ["patch", "update"].iter().any(|verb| has("verbs", verb)) {
                    writers.push(role["metadata"]["name"].as_str().unwrap_or_default().to_owned());
                }
            }
        }
        assert!(writers.len() == 1 && writers[0].contains("operator"), "{writers:?}");
    }
    Ok(())
}

#[test]
fn every_pod_is_restricted_and_disruption_budgets_are_where_replicas_are() -> Result<()> {
    let objects = objects(&render("")?.expect("it renders"));
    let deployments: Vec<&Value> = of_kind(&objects, "Deployment").collect();
    assert_eq!(deployments.len(), 5, "api-server, operator, billing, notify, inbox");
    for deployment in &deployments {
        let (name, pod) = (&deployment["metadata"]["name"], &deployment["spec"]["template"]["spec"]);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for container in pod["containers"].as_array().into_iter().flatten() {
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["capabilities"]["drop"][0], "ALL", "{name}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
            assert!(container["readinessProbe"].is_object() && container["livenessProbe"].is_object(), "{name}");
        }
    }
    let replicated: Vec<&Value> =
        deployments.iter().filter(|d| d["spec"]["replicas"] != 1).map(|d| &d["metadata"]["name"]).collect();
    let budgets: Vec<&Value> = of_kind(&objects, "PodDisruptionBudget").map(|budget| &budget["metadata"]["name"]).collect();
    assert_eq!(budgets, replicated);
    Ok(())
}
