//! The command `orders-audit`: reads an installation, checks it and prints a report.

use std::{process::ExitCode, time::Duration};

use orders_audit::{
    check::check,
    collect::{self, Source},
    config::{Config, Output},
    report::Report,
};
use orders_service::{arguments, http_client, kubernetes, token_file::TokenFile};

/// The timeout of the request for one page.
const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    match run(arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("the audit could not be completed: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(config: Config) -> anyhow::Result<bool> {
    config.log.init()?;
    let client = kubernetes::client().await?;
    let http = http_client::client(TIMEOUT)?;
    let source = |url, token| Source { url, token: TokenFile::new(token), http: http.clone() };
    let billing = source(config.billing_url, config.billing_token_file);
    let notify = source(config.notify_url, config.notify_token_file);
    let archive = config.archive_url.map(|url| source(url, config.archive_token_file));
    let snapshot = collect::snapshot(client, config.namespace.as_deref(), &billing, &notify, archive.as_ref()).await?;
    let report = Report::new(&snapshot, check(&snapshot));
    match config.output {
        Output::Text => print!("{}", report.to_text()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report.is_consistent)
}
