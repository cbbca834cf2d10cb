//! Prints billing's OpenAPI document. `billing-openapi > FILE` updates the committed file.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", orders_billing::routes::openapi().to_pretty_json()?);
    Ok(())
}
