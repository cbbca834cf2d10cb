//! Sets up logs: text for people, JSON for log collectors.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Command-line arguments for logs. A binary includes them with `#[command(flatten)]`.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// Format of the log lines.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Log filter, such as `info,orders_billing=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
}

/// Format of the log lines.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    Text,
    /// One JSON object per event.
    Json,
}

impl LogArgs {
    /// Starts logging to standard error. Call it once, at the start of `main`.
    ///
    /// # Errors
    /// If the filter cannot be parsed.
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
