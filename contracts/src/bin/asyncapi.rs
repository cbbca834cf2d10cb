//! Writes the AsyncAPI document of a style to standard output.

use orders_contracts::asyncapi::{Style, document};

fn main() -> anyhow::Result<()> {
    let style = match std::env::args().nth(1).as_deref() {
        Some("notify-broker") => Style::NotifyBroker,
        Some("broker") => Style::Broker,
        _ => anyhow::bail!("usage: asyncapi notify-broker|broker"),
    };
    println!("{}", serde_json::to_string_pretty(&document(style))?);
    Ok(())
}
