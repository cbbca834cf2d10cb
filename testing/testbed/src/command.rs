//! Runs programs to completion, with a time limit.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// One minute, which suffices for programs that only communicate on this machine.
pub(crate) const SHORT_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a program and returns its standard output.
///
/// # Errors
/// If the program is missing, fails (the error contains its output) or takes too long.
pub(crate) async fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Result<String> {
    run_within(SHORT_TIMEOUT, Command::new(program).args(args)).await
}

/// Runs a program as [`run`] does, with another limit.
///
/// # Errors
/// As [`run`].
pub(crate) async fn run_within(limit: Duration, command: &mut Command) -> Result<String> {
    run_with_input(limit, command, None).await
}

/// Runs a program as [`run_within`] does, and writes `input` to its standard input.
///
/// # Errors
/// As [`run`].
pub(crate) async fn run_with_input(limit: Duration, command: &mut Command, input: Option<&str>) -> Result<String> {
    let what = describe(command.as_std());
    let mut child = command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {what}"))?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).await?;
    }
    let Ok(output) = tokio::time::timeout(limit, child.wait_with_output()).await else {
        bail!("`{what}` did not exit within {limit:?}");
    };
    let output = output?;
    if !output.status.success() {
        bail!("`{what}` failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program is on the `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

fn describe(command: &std::process::Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_contains_the_command_and_its_output() {
        let error = run("/bin/sh", ["-c", "echo oops >&2; exit 4"]).await.unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("oops") && error.contains('4'), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_killed() {
        let error = run_within(Duration::from_millis(50), Command::new("sleep").arg("60")).await.unwrap_err();
        assert!(error.to_string().contains("did not exit"), "{error}");
    }

    #[tokio::test]
    async fn input_is_written_to_standard_input() {
        assert_eq!(run_with_input(SHORT_TIMEOUT, &mut Command::new("cat"), Some("text")).await.unwrap(), "text");
    }
}
