//! Writes the OpenAPI document that is committed: `archive-openapi > FILE`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", orders_archive::routes::openapi().to_pretty_json()?);
    Ok(())
}
