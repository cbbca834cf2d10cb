//! Runs `orders-audit` against a stack.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context, Result};
use orders_testbed::binary;
use tokio::process::Command;

/// The command that runs `orders-audit` against a stack.
#[derive(Clone, Debug)]
pub struct Audit(pub(crate) Vec<(&'static str, OsString)>);

impl Audit {
    /// Runs the audit to completion with these arguments.
    ///
    /// # Errors
    /// If the program has not been built, or does not exit within `limit`. Findings of the audit are no error.
    pub async fn run(&self, arguments: &[&str], limit: Duration) -> Result<AuditResult> {
        let mut command = Command::new(binary("orders-audit")?);
        command.args(arguments).envs(self.0.iter().map(|(key, value)| (key, value))).kill_on_drop(true);
        let output = tokio::time::timeout(limit, command.output()).await.context("orders-audit did not exit in time")??;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(AuditResult { exit_code: output.status.code(), output: text(&output.stdout) + &text(&output.stderr) })
    }
}

/// The result of an audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditResult {
    /// 0: orders, ledger and messages agree. 1: the audit found a violation. 2: the audit could not be completed.
    pub exit_code: Option<i32>,
    /// The output of the program.
    pub output: String,
}
