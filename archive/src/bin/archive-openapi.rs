//! Prints the archive's OpenAPI document. `archive-openapi > FILE` updates the committed file.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", orders_archive::routes::openapi().to_pretty_json()?);
    Ok(())
}
