//! `orders-faults`: tries to break the promises of orders.
//!
//! In the manner of Sieve (Sun et al., OSDI 2022): a run without faults numbers
//! every effect that one part has on another; then each fault is tried at each
//! effect, and what comes out must be what came out without it.

#![deny(missing_docs)]

mod actors;
mod case;
mod cli;
mod customer;
mod effect;
mod fault;
mod proxy;
mod report;
mod scenarios;
mod seeded_bugs;
mod shop;
mod sweep;
mod switchboard;
mod workload;

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<std::process::ExitCode> {
    cli::Cli::parse().run().await
}
