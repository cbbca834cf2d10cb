//! The committed AsyncAPI documents are those of the code.

use orders_contracts::asyncapi::{Style, document};

#[test]
fn the_committed_asyncapi_documents_are_those_of_the_code() {
    for (style, committed) in [
        (Style::NotifyBroker, include_str!("../../asyncapi/notify-broker.json")),
        (Style::Broker, include_str!("../../asyncapi/broker.json")),
    ] {
        let committed: serde_json::Value = serde_json::from_str(committed).unwrap();
        assert_eq!(committed, document(style), "run `make generate`");
    }
}
