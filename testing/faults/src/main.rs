//! `orders-faults` injects faults into running services, and checks that orders keeps its guarantees.
//!
//! The method is that of Sieve (Sun et al., OSDI 2022). A run without faults records and numbers
//! every effect: every change that one component makes in another. Then the harness injects each
//! fault at each effect, and compares the final state with that of the run without faults.

#![deny(missing_docs)]

mod actors;
mod case;
mod cli;
mod customer;
mod effect;
mod fault;
mod fault_injector;
mod proxy;
mod report;
mod retry;
mod scenarios;
mod seeded_bugs;
mod sweep;
mod system;
mod workload;

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<std::process::ExitCode> {
    cli::Cli::parse().run().await
}
