//! `kubectl orders audit`: runs the release's audit as a Job and prints its report.

use std::process::ExitCode;

use crate::{
    arguments::{AccessArgs, AuditArgs, Format, PrintArgs},
    job::{Change, Program, RunOptions, run as run_job},
};

/// The audit of a release.
pub const AUDIT: Program = Program {
    name: "audit",
    labels: "app.kubernetes.io/part-of=orders,app.kubernetes.io/component=audit",
    container: "audit",
    required_value: "audit.enabled",
};

/// Runs the audit. The exit code is 0 only if all checks pass, 1 if a check fails, and 2 if the
/// result could not be determined.
pub async fn run(access: &AccessArgs, print: &PrintArgs, arguments: &AuditArgs) -> ExitCode {
    let Some(output) = report_format(print.output) else {
        eprintln!("error: the audit prints text or, with --output json, JSON");
        return ExitCode::from(2);
    };
    let change = Change { env: vec![("OUTPUT", output)], ..Change::default() };
    let options = RunOptions { cron_job: arguments.cron_job.as_deref(), timeout: arguments.timeout };
    match run_job(access, AUDIT, &change, options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// The name that the audit has for a format of its report. `None` if it does not have this format.
fn report_format(format: Option<Format>) -> Option<&'static str> {
    match format {
        None => Some("text"),
        Some(Format::Json) => Some("json"),
        Some(Format::Wide | Format::Yaml | Format::Name) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_text_or_json() {
        assert_eq!((report_format(None), report_format(Some(Format::Json))), (Some("text"), Some("json")));
        for format in [Format::Wide, Format::Yaml, Format::Name] {
            assert_eq!(report_format(Some(format)), None, "{format:?}");
        }
    }
}
