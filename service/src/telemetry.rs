//! Logs: text for people, JSON for collectors.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// How to log; `#[command(flatten)]` this into a binary's arguments.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// Form of the log lines.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What to log, as in `info,orders_billing=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

impl LogArgs {
    /// Starts logging to standard error. Call once, first thing in `main`.
    ///
    /// # Errors
    /// If the filter cannot be read.
    pub fn init(&self) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(&self.log).map_err(|error| anyhow::anyhow!("RUST_LOG={}: {error}", self.log))?;
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
            LogFormat::Json => builder.json().flatten_event(true).init(),
        }
        Ok(())
    }
}
