//! The committed AsyncAPI documents are those of the code.

use orders_contracts::{asyncapi::document, interaction::Interaction};

#[test]
fn the_committed_asyncapi_documents_are_those_of_the_code() {
    for (style, committed) in [
        (Interaction::NotifyBroker, include_str!("../../asyncapi/notify-broker.json")),
        (Interaction::Broker, include_str!("../../asyncapi/broker.json")),
    ] {
        let committed: serde_json::Value = serde_json::from_str(committed).unwrap();
        assert_eq!(Some(committed), document(style), "run `make generate`");
    }
}
