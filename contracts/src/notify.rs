//! The requests and responses of notify's HTTP API.

use orders_crds::{EMail, Login};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Request of `POST /notify`: a message to deliver.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyRequest {
    /// Login of the customer.
    #[schema(value_type = String, example = "Aurore56")]
    pub login: Login,
    /// E-mail address of the customer.
    #[schema(value_type = String, format = Email, example = "Gage_Lind@gmail.com")]
    pub email: EMail,
    /// Text of the message: 1 to 2000 characters, without control characters except line feeds.
    #[schema(example = "Заказ успешно оформлен")]
    pub text: String,
    /// How often the message was requested again after its delivery was given up. Delivery is tried
    /// again if no earlier request has so high a number.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 100)]
    pub resends: u8,
}

/// A message as the log shows it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// Number of the message.
    #[schema(example = 22)]
    pub id: i64,
    /// Login of the customer.
    #[schema(example = "Aurore56")]
    pub login: String,
    /// E-mail address of the customer.
    #[schema(example = "Gage_Lind@gmail.com")]
    pub email: String,
    /// When the message was stored: UTC without a zone, microseconds.
    #[schema(example = "2025-01-27T06:01:27.018191")]
    pub dtime: String,
    /// Text of the message.
    #[schema(example = "Заказ успешно оформлен")]
    pub text: String,
    /// Whether the mail server accepted the message.
    pub is_sended: bool,
}

/// A message and the state of its delivery.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MessageDelivery {
    /// The message.
    #[serde(flatten)]
    pub entry: LogEntry,
    /// Key of the message.
    pub key: String,
    /// Number of failed attempts so far.
    pub attempts: i64,
    /// Reason why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Whether delivery was given up after too many failed attempts.
    /// `POST /notify/messages/{id}/resend` starts it again.
    #[serde(default)]
    #[schema(required = true)]
    pub dead_lettered: bool,
}

/// Item of the response to `GET /notify/messages`: a message with its key, for the audit.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExportedMessage {
    /// The message.
    #[serde(flatten)]
    pub entry: LogEntry,
    /// Key of the message: the order's UID, with a part that distinguishes the messages of one
    /// order.
    pub key: String,
}
