//! The OpenAPI document that is committed is the one of the code.

#[test]
fn the_committed_openapi_document_is_the_one_of_the_code() {
    let generated = orders_notify::routes::openapi().to_pretty_json().expect("the document is JSON") + "\n";
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json")).expect("it is committed");
    assert!(committed == generated, "the API changed: run `make generate` and commit the result");
}
