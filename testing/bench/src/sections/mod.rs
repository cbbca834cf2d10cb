//! The sections of the benchmark, each of which is one measurement.

pub mod archive;
pub mod backlog;
pub mod billing;
pub mod growth;
pub mod latency;
mod loops;
pub mod throughput;

use anyhow::Result;

use crate::bench::Bench;
use crate::options::Section;

/// Measures one section, or all sections.
///
/// # Errors
/// If the section fails. With all sections, each one runs, and the first error is returned at the end.
pub async fn run(bench: &mut Bench, section: Section) -> Result<()> {
    match section {
        Section::Throughput => throughput::run(bench).await,
        Section::Latency => latency::run(bench).await,
        Section::Billing => billing::run(bench).await,
        Section::Backlog => backlog::run(bench).await,
        Section::Growth => growth::run(bench).await,
        Section::Archive => archive::run(bench).await,
        Section::All => {
            let all =
                [Section::Throughput, Section::Latency, Section::Billing, Section::Backlog, Section::Growth, Section::Archive];
            let mut first = Ok(());
            for section in all {
                if let Err(error) = Box::pin(run(bench, section)).await {
                    eprintln!("{section:?} failed: {error:#}");
                    first = first.and(Err(error));
                }
            }
            first
        }
    }
}
