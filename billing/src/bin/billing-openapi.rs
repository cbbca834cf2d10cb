//! Writes the OpenAPI document that is committed: `billing-openapi > FILE`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", orders_billing::routes::openapi().to_pretty_json()?);
    Ok(())
}
