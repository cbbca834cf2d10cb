//! The committed OpenAPI document is the one that the code generates.

#[test]
fn the_committed_openapi_document_is_up_to_date() {
    let generated = orders_billing::routes::openapi().to_pretty_json().expect("the document is JSON") + "\n";
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json")).expect("it is committed");
    assert!(committed == generated, "the API changed: run `make generate` and commit the result");
}
