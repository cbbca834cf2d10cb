//! Tests of the chart's templates: which values they accept, and which properties every rendering must
//! have.

use std::process::Command;

use anyhow::Result;
use orders_testbed::Cache;
use serde_json::Value;

use crate::release::repository;

/// Renders the chart with these arguments, separated by spaces. Returns the rendering or helm's error.
fn render(arguments: &str) -> Result<Result<String, String>> {
    render_with(arguments.split_whitespace())
}

fn render_with<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Result<String, String>> {
    let mut helm = Command::new(Cache::locate()?.current_bin().join("helm"));
    helm.args(["template", "orders"]).arg(repository().join("helm/orders")).args(["--namespace", "shop"]);
    let output = helm.args(arguments).output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

#[test]
fn valid_values_render() -> Result<()> {
    for arguments in [
        "",
        "--set inbox.enabled=true",
        "--set inbox.enabled=null",
        "--set smtp.url=smtp://u:p@mail.example.com:2525",
        "--set smtp.existingSecret=mail",
        "--set ca.existingConfigMap=ca-bundle,ca.key=bundle.pem",
        "--set smtp.existingSecret=mail --set inbox.enabled=false",
        "--set billing.replicas=2 --set billing.database.existingSecret=db --set notify.replicas=2 --set notify.database.url=postgres://u:p@db:5433/n",
        "--set archive.replicas=2 --set archive.database.existingSecret=db",
        "--set billing.persistence.enabled=false,notify.persistence.existingClaim=n,archive.persistence.enabled=false",
        "--set operator.allNamespaces=true",
        "--set apiServer.replicas=null",
        "--set httpRoute.enabled=true --set httpRoute.parentRefs[0].name=public",
        "--set crds.enabled=false",
        "--set crds.keep=false",
        "--set rbac.create=false,rbac.aggregateRoles=false",
        "--set networkPolicy.enabled=false",
        "--set audit.enabled=false",
        "--set audit.schedule=@daily,audit.output=json",
        "--set ingress.enabled=true,ingress.className=nginx,ingress.tls.enabled=true",
        "--set image.registry=localhost --set image.tag=testbed --set image.pullPolicy=Never",
        "--set apiServer.service.type=NodePort,apiServer.service.nodePort=30080,apiServer.service.port=8000",
        "--set metrics.annotations=false --set apiServer.replicas=1",
        "--set interaction=notify-broker",
        "--set interaction=broker --set networkPolicy.enabled=false --set nats.server.persistence.enabled=false",
        "--set interaction=broker --set nats.existingSecret=mine --set nats.server.persistence.existingClaim=n",
        "--set interaction=broker --set nats.url=tls://nats.example.com:4222 --set nats.existingSecret=mine",
        // The chart ignores nats.url in this style, so it does not validate it.
        "--set nats.url=nats://nats.example.com",
    ] {
        assert!(render(arguments)?.is_ok(), "{arguments}: {:?}", render(arguments)?);
    }
    Ok(())
}

#[test]
fn invalid_values_are_refused_with_a_reason() -> Result<()> {
    for (arguments, reason) in [
        ("--set inbox.enabled=false", "no way to send mail"),
        ("--set inbox.enabled=true --set smtp.url=smtp://mail", "keep one of them"),
        ("--set smtp.existingSecret=m --set smtp.url=smtp://mail", "keep one of them"),
        ("--set smtp.url=mail.example.com", "smtp/url"),
        ("--set smtp.from=orders", "smtp/from"),
        ("--set smtp.ehloName=[127.0.0.1]", "smtp/ehloName"),
        ("--set smtp.timeouts.transfer=0", "smtp/timeouts/transfer"),
        ("--set ca.certificates=abc", "ca/certificates"),
        ("--set billing.replicas=2", "billing.replicas is 2"),
        ("--set notify.replicas=3", "notify.replicas is 3"),
        ("--set archive.replicas=2", "archive.replicas is 2"),
        ("--set billing.database.existingSecret=db --set billing.database.url=postgres://u:p@db/n", "keep one of them"),
        ("--set billing.database.url=sqlite:///var/b.db", "under /data"),
        ("--set billing.database.url=mysql://x", "database/url"),
        ("--set billing.database.url=postgres://x --set billing.database.host=x", "keep one of them"),
        ("--set billing.database.host=postgres://x", "database/host"),
        ("--set billing.database.sslMode=yes", "database/sslMode"),
        ("--set billing.replica=2", "'replica' not allowed"),
        ("--set foo=1", "'foo' not allowed"),
        ("--set billing.replicas=null", "billing.replicas is null"),
        ("--set billing.image.digest=abc", "billing/image/digest"),
        ("--set httpRoute.enabled=true", "set httpRoute.parentRefs"),
        ("--set apiServer.cors.origins[0]=shop.example.com", "cors/origins"),
        ("--set billing.extraEnv[0].name=DATABASE_URL,billing.extraEnv[0].value=x", "billing.extraEnv sets DATABASE_URL"),
        ("--set notify.extraEnv[0].name=RUST_LOG,notify.extraEnv[0].value=debug", "notify.extraEnv sets RUST_LOG"),
        ("--set fullnameOverride=9shop", "fullnameOverride"),
        ("--set image.pullPolicy=Sometimes", "pullPolicy"),
        ("--set apiServer.replicas=two", "replicas"),
        ("--set apiServer.replicas=-1", "replicas"),
        ("--set interaction=queue", "interaction"),
        ("--set interaction=broker --set nats.url=nats://nats.example.com", "nats.existingSecret"),
        ("--set nats.url=http://nats.example.com", "nats/url"),
        ("--set nats.url=nats://user:password@nats.example.com", "nats/url"),
        ("--set nats.server.maxStore=1Gi", "maxStore"),
        ("--set nats.server.replicas=3", "'replicas' not allowed"),
        ("--set audit.schedule=daily", "audit/schedule"),
        ("--kube-version 1.31.0", "kubeVersion"),
    ] {
        let error = render(arguments)?.expect_err(arguments);
        assert!(error.contains(reason), "{arguments}: {error}");
    }
    Ok(())
}

/// The objects of a rendering.
fn parse_objects(rendered: &str) -> Vec<Value> {
    let documents = rendered.split("\n---\n").filter(|text| text.contains("kind:"));
    documents.map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

#[test]
fn roles_have_no_wildcards_and_only_the_operator_writes_status() -> Result<()> {
    for arguments in ["", "--set operator.allNamespaces=true"] {
        let objects = parse_objects(&render(arguments)?.expect("it renders"));
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
fn every_pod_is_restricted_and_replicated_services_have_disruption_budgets() -> Result<()> {
    let objects = parse_objects(&render("--set interaction=broker")?.expect("it renders"));
    let deployments: Vec<&Value> = of_kind(&objects, "Deployment").chain(of_kind(&objects, "StatefulSet")).collect();
    assert_eq!(deployments.len(), 7, "api-server, operator, billing, notify, archive, inbox, nats");
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

/// The environment variables of a component's container.
fn variables<'a>(objects: &'a [Value], component: &str) -> Vec<(&'a str, &'a Value)> {
    let deployment = of_kind(objects, "Deployment").find(|object| object["metadata"]["name"] == format!("orders-{component}"));
    let env = deployment.and_then(|deployment| deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array());
    env.into_iter().flatten().map(|variable| (variable["name"].as_str().unwrap_or_default(), &variable["value"])).collect()
}

#[test]
fn a_sender_with_a_name_and_private_authorities_reach_the_services_that_need_them() -> Result<()> {
    let certificates = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n";
    let (ca, from) = (format!("ca.certificates={certificates}"), "smtp.from=My Shop <orders@example.com>");
    let rendered = render_with(["--set-string", &ca, "--set", from, "--set", "smtp.ehloName=shop.example.com"])?;
    let objects = parse_objects(&rendered.expect("it renders"));
    let config_map = of_kind(&objects, "ConfigMap").find(|object| object["metadata"]["name"] == "orders-ca").expect("the CA");
    assert_eq!(config_map["data"]["ca.crt"], certificates);
    let notify = variables(&objects, "notify");
    for (name, value) in [
        ("MAIL_FROM", "My Shop <orders@example.com>"),
        ("SMTP_EHLO_NAME", "shop.example.com"),
        ("SMTP_CA_FILE", "/etc/orders/ca/ca.crt"),
        ("SMTP_TRANSFER_TIMEOUT_SECONDS", "600"),
    ] {
        assert!(notify.contains(&(name, &Value::from(value))), "{name} in {notify:?}");
    }
    for component in ["billing", "notify", "archive"] {
        let file = ("PGSSLROOTCERT", &Value::from("/etc/orders/ca/ca.crt"));
        assert!(variables(&objects, component).contains(&file), "{component}");
    }
    assert_eq!(of_kind(&parse_objects(&render("")?.expect("it renders")), "ConfigMap").count(), 0);
    Ok(())
}

/// The specs of all pods, with the names of their objects.
fn pods(objects: &[Value]) -> Vec<(&str, &Value)> {
    let workloads = objects.iter().filter_map(|object| {
        let spec = match object["kind"].as_str()? {
            "Deployment" | "StatefulSet" => &object["spec"]["template"]["spec"],
            "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"]["spec"],
            "Pod" => &object["spec"],
            _ => return None,
        };
        Some((object["metadata"]["name"].as_str()?, spec))
    });
    workloads.collect()
}

#[test]
fn clusters_decide_ids_priorities_nodes_and_numbers_of_replicas() -> Result<()> {
    let digest = format!("sha256:{}", "a".repeat(64));
    let rendered = render(&format!(
        "--set interaction=broker --set priorityClassName=shop --set apiServer.replicas=null \
         --set podSecurityContext.runAsUser=null,podSecurityContext.runAsGroup=null,podSecurityContext.fsGroup=null \
         --set smoke.tolerations[0].operator=Exists,audit.tolerations[0].operator=Exists \
         --set smoke.resources.limits.cpu=1,audit.activeDeadlineSeconds=10000000,billing.image.digest={digest}"
    ))?;
    let objects = parse_objects(&rendered.expect("it renders"));
    assert_eq!(pods(&objects).len(), 10);
    for (name, pod) in pods(&objects) {
        assert_eq!(pod["priorityClassName"], "shop", "{name}");
        let security = pod["securityContext"].as_object().expect("a security context");
        assert!(
            ["runAsUser", "runAsGroup", "fsGroup"].iter().all(|field| !security.contains_key(*field)),
            "{name}: {security:?}"
        );
        assert_eq!(security["runAsNonRoot"], true, "{name}");
        if ["orders-smoke", "orders-audit"].contains(&name) {
            assert_eq!(pod["tolerations"][0]["operator"], "Exists", "{name}");
        }
    }
    let named = |kind, name: &str| of_kind(&objects, kind).find(|object| object["metadata"]["name"] == *name).expect("an object");
    assert!(!named("Deployment", "orders-api-server")["spec"].as_object().expect("a spec").contains_key("replicas"));
    assert_eq!(named("PodDisruptionBudget", "orders-api-server")["spec"]["maxUnavailable"], 1);
    assert_eq!(named("Pod", "orders-smoke")["spec"]["containers"][0]["resources"]["limits"]["cpu"], 1);
    assert_eq!(named("CronJob", "orders-audit")["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"], 10_000_000);
    let image = &named("Deployment", "orders-billing")["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, &format!("orders-billing@{digest}"));
    Ok(())
}

#[test]
fn every_service_listens_on_the_addresses_of_both_families() -> Result<()> {
    let rendered = render("--set interaction=broker")?.expect("it renders");
    // NATS is a Go program, in which 0.0.0.0 stands for both.
    let of_one_family = rendered
        .lines()
        .filter(|line| line.contains("0.0.0.0") && !line.contains("0.0.0.0:4222") && !line.contains("0.0.0.0:8222"));
    assert_eq!(of_one_family.collect::<Vec<_>>(), Vec::<&str>::new());
    // A plain --ip=:: would be a mapping in YAML.
    for (name, pod) in pods(&parse_objects(&rendered)) {
        let args = pod["containers"][0]["args"].as_array().cloned().unwrap_or_default();
        assert!(args.iter().all(Value::is_string), "{name}: {args:?}");
    }
    Ok(())
}

#[test]
fn a_database_may_be_given_by_host_and_user_with_its_password_in_a_secret() -> Result<()> {
    let arguments = "--set billing.database.host=pg-rw.databases,billing.database.port=6432,billing.database.user=shop \
                     --set billing.database.existingSecret=pg,billing.database.key=password,billing.replicas=2";
    let objects = parse_objects(&render(arguments)?.expect("it renders"));
    let variables = variables(&objects, "billing");
    for expected in [
        ("DATABASE_URL", "postgres://"),
        ("PGHOST", "pg-rw.databases"),
        ("PGPORT", "6432"),
        ("PGUSER", "shop"),
        ("PGDATABASE", "billing"),
    ] {
        assert!(variables.iter().any(|(name, value)| (*name, value.as_str()) == (expected.0, Some(expected.1))), "{variables:?}");
    }
    let deployment = of_kind(&objects, "Deployment").find(|object| object["metadata"]["name"] == "orders-billing");
    let secret = r#"{"name":"PGPASSWORD","valueFrom":{"secretKeyRef":{"key":"password","name":"pg"}}}"#;
    assert!(deployment.expect("a deployment").to_string().contains(secret));
    assert!(!of_kind(&objects, "Secret").any(|secret| secret["metadata"]["name"] == "orders-billing"));
    let policy = of_kind(&objects, "NetworkPolicy").find(|policy| policy["metadata"]["name"] == "orders-billing");
    assert!(policy.expect("a policy")["spec"]["egress"].to_string().contains("6432"));
    Ok(())
}

#[test]
fn what_outlives_the_release_is_kept_by_helm_and_by_argo_cd() -> Result<()> {
    let objects = parse_objects(&render("")?.expect("it renders"));
    let kept: Vec<&Value> =
        of_kind(&objects, "CustomResourceDefinition").chain(of_kind(&objects, "PersistentVolumeClaim")).collect();
    assert_eq!(kept.len(), 5);
    for object in kept {
        let annotations = &object["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/resource-policy"], "keep", "{}", object["metadata"]["name"]);
        assert_eq!(annotations["argocd.argoproj.io/sync-options"], "Delete=false,Prune=false");
    }
    Ok(())
}

#[test]
fn a_gateway_routes_to_the_service_of_the_api() -> Result<()> {
    let gateway = "--set httpRoute.enabled=true --set httpRoute.parentRefs[0].name=public --set apiServer.service.port=8080";
    let objects = parse_objects(&render(gateway)?.expect("it renders"));
    let route = of_kind(&objects, "HTTPRoute").next().expect("an HTTPRoute");
    assert_eq!(route["spec"]["parentRefs"][0]["name"], "public");
    assert_eq!(route["spec"]["hostnames"][0], "arch.homework");
    let backend = &route["spec"]["rules"][0]["backendRefs"][0];
    assert_eq!((&backend["name"], &backend["port"]), (&"orders-api-server".into(), &8080.into()));
    Ok(())
}

#[test]
fn only_the_users_of_the_archive_reach_it_each_with_its_token() -> Result<()> {
    let objects = parse_objects(&render("")?.expect("it renders"));
    let named = |kind, name: &str| of_kind(&objects, kind).find(|object| object["metadata"]["name"] == *name);
    for (kind, name) in [("Deployment", "orders-operator"), ("Deployment", "orders-api-server"), ("CronJob", "orders-audit")] {
        let spec = &named(kind, name).unwrap_or_else(|| panic!("no {name}"))["spec"];
        let template = if kind == "CronJob" { &spec["jobTemplate"]["spec"]["template"] } else { &spec["template"] };
        let pod = &template["spec"];
        let container = &pod["containers"][0];
        let has =
            |list: &Value, field: &str, value: &str| list.as_array().is_some_and(|all| all.iter().any(|it| it[field] == *value));
        assert!(has(&container["env"], "name", "ARCHIVE_URL"), "{name}");
        assert!(has(&container["volumeMounts"], "mountPath", "/var/run/secrets/orders/archive"), "{name}");
        let volume = pod["volumes"].as_array().into_iter().flatten().find(|volume| volume["name"] == "archive-token");
        let token = &volume.unwrap_or_else(|| panic!("{name}: no volume"))["projected"]["sources"][0]["serviceAccountToken"];
        assert_eq!(token["audience"], "orders-archive", "{name}");
        let policy = named("NetworkPolicy", name).unwrap_or_else(|| panic!("no policy of {name}"));
        assert!(policy["spec"]["egress"].to_string().contains("archive"), "{name}");
    }
    let policy = named("NetworkPolicy", "orders-archive").expect("a policy");
    let peers = policy["spec"]["ingress"][0]["from"].to_string();
    for component in ["operator", "api-server", "audit"] {
        assert!(peers.contains(component), "{component}: {peers}");
    }
    assert!(!peers.contains("billing") && !peers.contains("notify"), "{peers}");
    Ok(())
}

#[test]
fn the_audit_runs_on_demand_and_periodically_only_with_a_schedule() -> Result<()> {
    for (value, suspend, schedule) in
        [("", true, "@daily"), ("@hourly", false, "@hourly"), ("30 3 * * 1-5", false, "30 3 * * 1-5")]
    {
        let objects = parse_objects(&render_with(["--set", &format!("audit.schedule={value}")])?.expect("it renders"));
        let cron_job = of_kind(&objects, "CronJob").next().expect("a CronJob");
        let spec = &cron_job["spec"];
        assert_eq!((&spec["suspend"], &spec["schedule"]), (&suspend.into(), &schedule.into()), "{value}");
        assert_eq!(spec["concurrencyPolicy"], "Forbid");
        // `kubectl orders audit` finds the CronJob by these labels, and relies on its contents.
        let labels = &cron_job["metadata"]["labels"];
        assert_eq!(
            (&labels["app.kubernetes.io/part-of"], &labels["app.kubernetes.io/component"]),
            (&"orders".into(), &"audit".into())
        );
        let job = &spec["jobTemplate"]["spec"];
        assert_eq!(job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"], serde_json::json!([1]));
        let pod = &job["template"]["spec"];
        assert_eq!((&pod["securityContext"]["runAsNonRoot"], &pod["containers"][0]["name"]), (&true.into(), &"audit".into()));
        assert_eq!(pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
    }
    let without = render("--set audit.enabled=false")?.expect("it renders");
    assert!(!without.contains("component: audit") && of_kind(&parse_objects(&without), "CronJob").next().is_none());
    Ok(())
}

/// The names of the environment variables about the broker in a Deployment's container.
fn broker_variables<'a>(objects: &'a [Value], component: &str) -> Vec<&'a str> {
    let name = format!("orders-{component}");
    let deployment = of_kind(objects, "Deployment").find(|object| object["metadata"]["name"] == *name);
    let env = deployment.and_then(|it| it["spec"]["template"]["spec"]["containers"][0]["env"].as_array());
    let names = env.unwrap_or_else(|| panic!("no {name}")).iter().filter_map(|variable| variable["name"].as_str());
    names.filter(|name| name.starts_with("NATS_") || *name == "INTERACTION").collect()
}

/// The kinds of the objects of the chart's own server.
fn broker_kinds(objects: &[Value]) -> Vec<&str> {
    let own = objects.iter().filter(|object| object["metadata"]["name"] == "orders-nats");
    let mut kinds: Vec<&str> = own.filter_map(|object| object["kind"].as_str()).collect();
    kinds.sort_unstable();
    kinds
}

const BROKER: [&str; 6] = ["ConfigMap", "NetworkPolicy", "PersistentVolumeClaim", "Secret", "Service", "StatefulSet"];

#[test]
fn without_a_broker_no_object_mentions_nats() -> Result<()> {
    for arguments in ["", "--set interaction=http --set nats.url=nats://n --set nats.existingSecret=mine"] {
        let rendered = render(arguments)?.expect("it renders");
        assert!(!rendered.to_lowercase().contains("nats") && !rendered.contains("INTERACTION"), "{rendered}");
    }
    Ok(())
}

#[test]
fn the_chart_includes_a_broker_and_configures_only_the_services_that_use_it() -> Result<()> {
    let (own, operators) = (vec!["NATS_URL", "NATS_PASSWORD"], vec!["INTERACTION", "NATS_URL", "NATS_PASSWORD"]);
    for (interaction, billing) in [("notify-broker", vec![]), ("broker", own.clone())] {
        let objects = parse_objects(&render(&format!("--set interaction={interaction}"))?.expect("it renders"));
        assert_eq!(broker_kinds(&objects), BROKER);
        assert_eq!(broker_variables(&objects, "operator"), operators, "{interaction}");
        assert_eq!(broker_variables(&objects, "billing"), billing, "{interaction}");
        assert_eq!(broker_variables(&objects, "notify"), own, "{interaction}");
        assert_eq!(broker_variables(&objects, "api-server"), Vec::<&str>::new(), "{interaction}");
        // The policy admits only the services that use the broker.
        let policy = of_kind(&objects, "NetworkPolicy").find(|policy| policy["metadata"]["name"] == "orders-nats");
        let rule = &policy.expect("a policy")["spec"]["ingress"][0];
        let peers = rule["from"].as_array().map_or(0, Vec::len);
        assert_eq!(peers, if billing.is_empty() { 3 } else { 4 }, "{interaction}: {rule}");
        assert!(!rule.to_string().contains("api-server"), "{rule}");
    }
    Ok(())
}

#[test]
fn the_dead_letters_are_a_suspended_cron_job_with_the_administrators_password() -> Result<()> {
    let objects = parse_objects(&render("--set interaction=notify-broker")?.expect("it renders"));
    let found = of_kind(&objects, "CronJob").find(|object| object["metadata"]["name"] == "orders-dead-letters");
    let cron_job = found.expect("a CronJob");
    assert_eq!(cron_job["spec"]["suspend"], true);
    // `kubectl orders dead-letters` finds the CronJob by these labels, and its container by the name.
    let labels = &cron_job["metadata"]["labels"];
    let labels = (&labels["app.kubernetes.io/part-of"], &labels["app.kubernetes.io/component"]);
    assert_eq!(labels, (&"orders".into(), &"dead-letters".into()));
    let container = &cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["name"], "dead-letters");
    assert!(container["env"].to_string().contains(r#""secretKeyRef":{"key":"admin","name":"orders-nats"}"#), "{container}");
    Ok(())
}

#[test]
fn passwords_of_the_broker_begin_with_a_letter() -> Result<()> {
    let objects = parse_objects(&render("--set interaction=broker")?.expect("it renders"));
    let secret = of_kind(&objects, "Secret").find(|secret| secret["metadata"]["name"] == "orders-nats").expect("a secret");
    let data = secret["data"].as_object().expect("data");
    assert_eq!(data.len(), 4, "{data:?}");
    for (user, password) in data {
        // The letter is p, which is encoded as c in Base64.
        let password = password.as_str().unwrap_or_default();
        assert!(password.starts_with('c') && password.len() > 40, "{user}: {password}");
    }
    Ok(())
}

#[test]
fn an_external_broker_replaces_the_broker_of_the_chart() -> Result<()> {
    let arguments = "--set interaction=broker --set nats.url=tls://nats.example.com:4333 --set nats.existingSecret=mine";
    let rendered = render(arguments)?.expect("it renders");
    let objects = parse_objects(&rendered);
    assert_eq!(broker_kinds(&objects), Vec::<&str>::new());
    assert_eq!(broker_variables(&objects, "billing"), ["NATS_URL", "NATS_PASSWORD"]);
    assert!(rendered.contains("value: tls://nats.example.com:4333") && rendered.contains("name: mine"), "{rendered}");
    let policy = of_kind(&objects, "NetworkPolicy").find(|policy| policy["metadata"]["name"] == "orders-billing");
    assert!(policy.expect("a policy")["spec"]["egress"].to_string().contains("4333"));
    Ok(())
}
