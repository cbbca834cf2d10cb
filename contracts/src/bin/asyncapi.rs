//! Writes the AsyncAPI document of a style to standard output.

use anyhow::Context;
use orders_contracts::asyncapi::document;

fn main() -> anyhow::Result<()> {
    let style = std::env::args().nth(1).and_then(|name| name.parse().ok());
    let document = style.and_then(document).context("usage: asyncapi notify-broker|broker")?;
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}
