//! The binary of `kubectl orders`: parses the command line and runs the command.

use std::process::ExitCode;

use clap::Parser;
use kubectl_orders::{
    access::Access,
    api::Api,
    arguments::{ApiCommand, Arguments, Command},
    audit, commands, dead_letters,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Arguments { access, print, command } = Arguments::parse();
    let command = match command {
        Command::Api(command) => command,
        Command::Audit(arguments) => return audit::run(&access, &print, &arguments).await,
        Command::DeadLetters(arguments) => return dead_letters::run(&access, &arguments).await,
        Command::Stuck(all) => return commands::run_stuck(&access, &print, &all).await,
    };
    if let ApiCommand::List(arguments) = &command
        && arguments.all.all_namespaces
    {
        return commands::list_all(&access, arguments, &print).await;
    }
    let api = match Access::find(&access).await {
        Ok(access) => Api::new(access),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    if commands::run(&api, command, &print).await { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
