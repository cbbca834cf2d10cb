//! `kubectl orders dead-letters`: lists and replays the messages that a service could not handle, as a Job.
//!
//! The broker is reachable only in the cluster, and the password of its administrator is a Secret. The Job has
//! both, so that the user of the command needs neither.

use std::process::ExitCode;

use crate::{
    arguments::{AccessArgs, DeadLettersArgs, DeadLettersCommand},
    job::{Change, Program, RunOptions, run as run_job},
};

/// The program that lists and replays the dead letters of a release.
pub const DEAD_LETTERS: Program = Program {
    name: "dead-letters",
    labels: "app.kubernetes.io/part-of=orders,app.kubernetes.io/component=dead-letters",
    container: "dead-letters",
    required_value: "interaction (notify-broker or broker)",
};

/// Runs the command. The exit code is 0 if it succeeded, otherwise 1.
pub async fn run(access: &AccessArgs, arguments: &DeadLettersArgs) -> ExitCode {
    let change = Change {
        args: Some(program_arguments(&arguments.command)),
        deadline_seconds: i64::try_from(arguments.timeout.as_secs()).ok(),
        ..Change::default()
    };
    let options = RunOptions { cron_job: None, timeout: arguments.timeout };
    match run_job(access, DEAD_LETTERS, &change, options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The arguments of `orders-dead-letters` for this command.
fn program_arguments(command: &DeadLettersCommand) -> Vec<String> {
    match command {
        DeadLettersCommand::List => vec!["list".to_owned()],
        DeadLettersCommand::Replay { number: Some(number), .. } => vec!["replay".to_owned(), number.to_string()],
        DeadLettersCommand::Replay { number: None, .. } => vec!["replay".to_owned(), "--all".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    #[test]
    fn the_program_gets_the_arguments_of_the_command() {
        for (line, expected) in [("list", "list"), ("replay 7", "replay 7"), ("replay --all", "replay --all")] {
            let line = format!("orders dead-letters {line}");
            match Arguments::parse_from(line.split(' ')).command {
                Command::DeadLetters(arguments) => assert_eq!(program_arguments(&arguments.command).join(" "), expected),
                other => panic!("{other:?}"),
            }
        }
        for line in ["replay", "replay 0", "replay x", "replay 7 --all"] {
            assert!(Arguments::try_parse_from(format!("orders dead-letters {line}").split(' ')).is_err(), "{line}");
        }
    }
}
