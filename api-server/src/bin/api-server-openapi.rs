//! Writes the OpenAPI document that is committed: `api-server-openapi > FILE`.

fn main() -> Result<(), serde_json::Error> {
    println!("{}", orders_api_server::routes::openapi().to_pretty_json()?);
    Ok(())
}
