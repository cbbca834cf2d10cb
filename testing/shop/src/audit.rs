//! `orders-audit`, run against a stack.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context, Result};
use orders_testbed::binary;
use tokio::process::Command;

/// How `orders-audit` is run against a stack.
#[derive(Clone, Debug)]
pub struct Audit(pub(crate) Vec<(&'static str, OsString)>);

impl Audit {
    /// Runs it with these arguments, to its end.
    ///
    /// # Errors
    /// When it has not been built, or does not end within `limit`. What it finds is no error.
    pub async fn run(&self, arguments: &[&str], limit: Duration) -> Result<Audited> {
        let mut command = Command::new(binary("orders-audit")?);
        command.args(arguments).envs(self.0.iter().map(|(key, value)| (key, value))).kill_on_drop(true);
        let output = tokio::time::timeout(limit, command.output()).await.context("orders-audit did not end")??;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(Audited { exit_code: output.status.code(), output: text(&output.stdout) + &text(&output.stderr) })
    }
}

/// What an audit came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// 0: all holds. 1: something does not. 2: it was not found out.
    pub exit_code: Option<i32>,
    /// What it said.
    pub output: String,
}
