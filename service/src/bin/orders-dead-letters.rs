//! Lists the dead letters and replays them.

use anyhow::Context;
use clap::{Parser, Subcommand};
use orders_service::broker::dead_letters::DeadLetters;
use secrecy::SecretString;

/// Lists and replays dead letters: messages that a service could not handle.
#[derive(Debug, Parser)]
#[command(name = "orders-dead-letters", version)]
struct Cli {
    /// URL of the broker, such as nats://localhost:4222
    #[arg(long, env = "NATS_URL")]
    nats_url: String,

    /// Password of the broker's user admin
    #[arg(long, env = "NATS_PASSWORD", hide_env_values = true)]
    nats_password: SecretString,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the dead letters, oldest first, each with its number, reason and message
    List,
    /// Publish dead letters again on their subjects
    Replay {
        /// Number of the dead letter
        #[arg(required_unless_present = "all")]
        number: Option<u64>,
        /// Replay all dead letters
        #[arg(long, conflicts_with = "number")]
        all: bool,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let letters = DeadLetters::connect(&cli.nats_url, &cli.nats_password).await.context("cannot reach the broker")?;
    let all = letters.list().await?;
    match cli.command {
        Command::List => {
            for letter in &all {
                println!(
                    "{}\t{} to {}, delivered {} times: {}\n\t{}",
                    letter.sequence,
                    letter.subject,
                    letter.service,
                    letter.deliveries,
                    letter.reason,
                    String::from_utf8_lossy(&letter.payload)
                );
            }
            println!("{} dead letters", all.len());
        }
        Command::Replay { number, .. } => {
            let selected: Vec<_> = all.iter().filter(|letter| number.is_none_or(|number| letter.sequence == number)).collect();
            anyhow::ensure!(number.is_none() || !selected.is_empty(), "there is no dead letter with this number; see `list`");
            for letter in &selected {
                letters.replay(letter).await?;
            }
            println!("{} replayed", selected.len());
        }
    }
    Ok(())
}
