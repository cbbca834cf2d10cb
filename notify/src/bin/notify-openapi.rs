//! Prints notify's OpenAPI document. `notify-openapi > FILE` updates the committed file.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", orders_notify::routes::openapi().to_pretty_json()?);
    Ok(())
}
