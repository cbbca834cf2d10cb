//! Writes the OpenAPI document that is committed: `notify-openapi > FILE`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", orders_notify::routes::openapi().to_pretty_json()?);
    Ok(())
}
