//! Tests of databases that are set up as users set them up.

use anyhow::{Context, Result};
use orders_shop::Interaction;
use orders_testbed::{Cluster, Postgres};
use serde_json::json;
use sqlx::AnyPool;

use crate::shop::Shop;

/// Switches TLS on, with a certificate that the server signs itself. Returns the certificate.
async fn enable_tls(postgres: &Postgres) -> Result<String> {
    let directory = postgres.query("SHOW data_directory")?;
    let openssl = format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout {directory}/server.key -out {directory}/server.crt \
         -subj /CN=orders -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE 2>/dev/null"
    );
    postgres.query(&format!("COPY (SELECT) TO PROGRAM '{openssl}'"))?;
    postgres.query("ALTER SYSTEM SET ssl = on")?;
    postgres.query("SELECT pg_reload_conf()")?;
    postgres.query("SELECT pg_read_file('server.crt')")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_a_certificate_of_a_private_authority_is_trusted_by_file() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let (file, url) = (directory.path().join("ca.crt"), format!("{}?sslmode=verify-full", postgres.url()));
    std::fs::write(&file, enable_tls(&postgres).await?)?;
    sqlx::any::install_default_drivers();
    let distrusted = AnyPool::connect(&url).await.err().context("the certificate is not trusted without the file")?;
    assert!(distrusted.to_string().contains("certificate"), "{distrusted}");

    let shop = Shop::start_with_style(Interaction::Http, &Cluster::control_plane().await?, |mut options| {
        options.billing_database = Some(url);
        options.env.push(("billing", "PGSSLROOTCERT", file.display().to_string()));
        options
    })
    .await?;
    shop.open_account("paul", json!(500)).await?;
    assert_eq!(shop.place_order("paul", json!(100)).await?.status, 200);
    let encrypted = "SELECT count(*) > 0 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND datname = 'orders'";
    assert_eq!(postgres.query(encrypted)?, "t");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn host_user_and_password_may_be_separate_variables_so_that_no_password_is_encoded() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let postgres = Postgres::start(directory.path()).await?;
    let password = "p#/?%@: '\"";
    postgres.query(&format!("CREATE ROLE shop LOGIN PASSWORD '{}'", password.replace('\'', "''")))?;
    postgres.query("CREATE DATABASE separate OWNER shop")?;
    // This user has to give its password.
    let rules = postgres.query("SHOW hba_file")?;
    postgres.query(&format!("COPY (SELECT) TO PROGRAM 'sed -i ''1i host all shop all scram-sha-256'' {rules}'"))?;
    postgres.query("SELECT pg_reload_conf()")?;
    let url = postgres.url();
    let (host, port) = url.split('@').nth(1).and_then(|rest| rest.split('/').next()?.split_once(':')).context("host and port")?;
    let variables =
        [("PGHOST", host), ("PGPORT", port), ("PGDATABASE", "separate"), ("PGUSER", "shop"), ("PGPASSWORD", password)];
    let shop = Shop::start_with_style(Interaction::Http, &Cluster::control_plane().await?, |mut options| {
        options.billing_database = Some("postgres://".to_owned());
        options.env.extend(variables.map(|(name, value)| ("billing", name, value.to_owned())));
        options
    })
    .await?;
    shop.open_account("quinn", json!(500)).await?;
    assert_eq!(shop.place_order("quinn", json!(100)).await?.status, 200);
    let connected = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'separate' AND usename = 'shop'";
    assert_eq!(postgres.query(connected)?, "t");
    Ok(())
}
