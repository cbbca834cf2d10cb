//! Generates the AsyncAPI 3 documents, one for each style of interaction with a broker, from the types and the
//! topology that the services use.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::{
    events::{CloseRequested, Decided, Event, NotificationChanged, PaymentRequested, RefundRequested, Refunded},
    interaction::Interaction,
    topology::{
        CLOSE_REQUESTED, DECIDED, NOTIFICATION_CHANGED, PAYMENT_DECIDED, PAYMENT_REFUNDED, PAYMENT_REQUESTED, REFUND_REQUESTED,
        Service,
    },
};

/// A subject, the message on it, its sender and its receivers.
struct Channel {
    name: &'static str,
    subject: &'static str,
    message: &'static str,
    /// Returns the message of this name and the schema of its data.
    describe: fn(&str) -> (Value, Value),
    summary: &'static str,
    from: Service,
    to: &'static [Service],
}

const REQUEST: Channel = Channel {
    name: "paymentRequested",
    subject: PAYMENT_REQUESTED,
    message: "PaymentRequested",
    describe: describe::<PaymentRequested>,
    summary: "The operator requests a charge. It repeats the request with the same key until it has the outcome",
    from: Service::Operator,
    to: &[Service::Billing],
};
const CLOSE: Channel = Channel {
    name: "closeRequested",
    subject: CLOSE_REQUESTED,
    message: "CloseRequested",
    describe: describe::<CloseRequested>,
    summary: "The operator requests that the charge of a cancelled order be closed. Billing replies with the outcome, as for a payment",
    from: Service::Operator,
    to: &[Service::Billing],
};
const REFUND: Channel = Channel {
    name: "refundRequested",
    subject: REFUND_REQUESTED,
    message: "RefundRequested",
    describe: describe::<RefundRequested>,
    summary: "The operator requests the refund of an order that was cancelled after it was paid",
    from: Service::Operator,
    to: &[Service::Billing],
};
const REFUNDED: Channel = Channel {
    name: "paymentRefunded",
    subject: PAYMENT_REFUNDED,
    message: "Refunded",
    describe: describe::<Refunded>,
    summary: "Billing has refunded a charge. The operator writes the refund into the order and requests the customer's message",
    from: Service::Billing,
    to: &[Service::Operator],
};
const PAYMENT: Channel = Channel {
    name: "paymentDecided",
    subject: PAYMENT_DECIDED,
    message: "Decided",
    describe: describe::<Decided>,
    summary: "The outcome of a payment. The operator writes it into the order, and notify sends the customer a message",
    from: Service::Billing,
    to: &[Service::Operator, Service::Notify],
};
const ORDER: Channel = Channel {
    name: "decided",
    subject: DECIDED,
    message: "Decided",
    describe: describe::<Decided>,
    summary: "The outcome of an order. Notify sends the customer one message per key and publishes the state of the message",
    from: Service::Operator,
    to: &[Service::Notify],
};
const NOTIFICATION: Channel = Channel {
    name: "notificationChanged",
    subject: NOTIFICATION_CHANGED,
    message: "NotificationChanged",
    describe: describe::<NotificationChanged>,
    summary: "The state of a customer's message. The operator writes it into the order",
    from: Service::Notify,
    to: &[Service::Operator],
};

/// Generates the document of a style. Returns `None` for [`Interaction::Http`], which uses no broker.
pub fn document(interaction: Interaction) -> Option<Value> {
    let (title, channels): (_, &[&Channel]) = match interaction {
        Interaction::Http => return None,
        Interaction::NotifyBroker => ("orders: broker for notifications", &[&ORDER, &NOTIFICATION]),
        Interaction::Broker => {
            ("orders: broker for everything", &[&REQUEST, &CLOSE, &REFUND, &PAYMENT, &REFUNDED, &ORDER, &NOTIFICATION])
        }
    };
    let mut document = json!({
        "asyncapi": "3.0.0",
        "id": "urn:homework:arch:orders",
        "info": {
            "title": title,
            "version": env!("CARGO_PKG_VERSION"),
            "description": "CloudEvents 1.0 in JSON over NATS JetStream, delivered at least once. Each message has a key, the order's UID, which ensures that its effect happens once. A message that a service cannot handle goes to orders.dead.SERVICE.",
            "contact": {"name": "orders", "url": "http://arch.homework"},
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "tags": [{"name": "orders"}],
        },
        "defaultContentType": "application/cloudevents+json",
        "servers": {
            "nats": {"host": "orders-nats:4222", "protocol": "nats", "description": "NATS with JetStream. Each service has its own user",
                "security": [{"$ref": "#/components/securitySchemes/user"}]},
        },
        "channels": {}, "operations": {},
        "components": {"messages": {}, "schemas": {}, "securitySchemes": {"user": {"type": "userPassword", "description": "operator, billing or notify"}}},
    });
    for channel in channels {
        document["channels"][channel.name] = json!({
            "address": channel.subject,
            "title": channel.subject,
            "description": channel.summary,
            "servers": [{"$ref": "#/servers/nats"}],
            "messages": {channel.message: {"$ref": format!("#/components/messages/{}", channel.message)}},
        });
        let operation = |action: &str, service: Service| {
            json!({
                "action": action,
                "title": format!("{} {action}s {}", service.name(), channel.subject),
                "summary": channel.summary,
                "description": channel.summary,
                "channel": {"$ref": format!("#/channels/{}", channel.name)},
                "messages": [{"$ref": format!("#/channels/{}/messages/{}", channel.name, channel.message)}],
            })
        };
        let name = |service: Service, verb: &str| format!("{}{verb}{}", service.name(), capitalize(channel.name));
        document["operations"][name(channel.from, "Sends")] = operation("send", channel.from);
        for service in channel.to {
            document["operations"][name(*service, "Receives")] = operation("receive", *service);
        }
        let (message, schema) = (channel.describe)(channel.message);
        document["components"]["messages"][channel.message] = message;
        document["components"]["schemas"][channel.message] = schema;
    }
    Some(document)
}

/// Returns the message, whose payload is the CloudEvent around the data, and the schema of the
/// data.
fn describe<E: Event>(name: &str) -> (Value, Value) {
    let mut schema = schema_of::<E>();
    let description = schema["description"].clone();
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("$schema");
    }
    let payload = json!({
        "type": "object",
        "required": ["specversion", "id", "source", "type", "subject", "time", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "description": "Of several messages with the same id within two minutes, the broker keeps only the first"},
            "source": {"type": "string", "description": "The service that sends the message, such as /orders/billing"},
            "type": {"const": E::TYPE},
            "subject": {"type": "string", "description": "The key, as in data"},
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"const": "application/json"},
            "data": {"$ref": format!("#/components/schemas/{name}")},
        },
    });
    let message = json!({
        "name": E::TYPE, "title": name, "summary": description, "description": description,
        "contentType": "application/cloudevents+json", "payload": payload,
    });
    (message, schema)
}

/// Returns the schema of a type. AsyncAPI uses the schemas of JSON Schema draft 7.
fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn capitalize(name: &str) -> String {
    name.chars().take(1).flat_map(char::to_uppercase).chain(name.chars().skip(1)).collect()
}
