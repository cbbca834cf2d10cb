//! The service-account tokens with which the services call each other.

use std::path::{Path, PathBuf};

use anyhow::Result;
use kube::Client;
use orders_testbed::service_account_token;

/// The callers' tokens, in files, as the kubelet would provide them.
pub(crate) struct Tokens {
    directory: PathBuf,
    pub(crate) operator_account: String,
    pub(crate) api_server_account: String,
    pub(crate) audit_account: String,
}

impl Tokens {
    pub(crate) async fn create(client: &Client, namespace: &str, directory: &Path) -> Result<Self> {
        let tokens = |account: &'static str, service: &'static str| {
            let file = directory.join(format!("{account}-{service}.token"));
            let audience = format!("orders-{service}");
            async move { service_account_token(client, namespace, &format!("orders-{account}"), &audience, &file).await }
        };
        tokens("operator", "notify").await?;
        tokens("audit", "notify").await?;
        for account in ["operator", "api-server", "audit"] {
            tokens(account, "archive").await?;
        }
        Ok(Tokens {
            operator_account: tokens("operator", "billing").await?,
            api_server_account: tokens("api-server", "billing").await?,
            audit_account: tokens("audit", "billing").await?,
            directory: directory.to_owned(),
        })
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.join(format!("{name}.token")).display().to_string()
    }
}
