//! Notify's HTTP calls.

use orders_crds::{EMail, Login};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /notify`: a message to deliver.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyRequest {
    /// The customer.
    #[schema(value_type = String, example = "Aurore56")]
    pub login: Login,
    /// The address.
    #[schema(value_type = String, format = Email, example = "Gage_Lind@gmail.com")]
    pub email: EMail,
    /// 1 to 2000 characters, no control characters but line feeds.
    #[schema(example = "Заказ успешно оформлен")]
    pub text: String,
    /// How often the message was requested again after its delivery had been given up. It is tried anew if it was not
    /// requested so often before.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 100)]
    pub resends: u8,
}

/// A message as the log shows it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// Its number.
    pub id: i64,
    /// The customer.
    pub login: String,
    /// The address.
    pub email: String,
    /// When it was stored: UTC without a zone, microseconds.
    pub dtime: String,
    /// Its text.
    pub text: String,
    /// Whether the mail server accepted it.
    pub is_sended: bool,
}

/// A message and the state of its delivery.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Delivered {
    /// The message.
    #[serde(flatten)]
    pub entry: LogEntry,
    /// Its key.
    pub key: String,
    /// Failed attempts so far.
    pub attempts: i64,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Whether its delivery was given up after too many failed attempts; `POST /notify/messages/{id}/resend` tries it anew.
    #[serde(default)]
    pub dead_lettered: bool,
}

/// `GET /notify/messages`: a message with its key, for the audit.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyedEntry {
    /// The message.
    #[serde(flatten)]
    pub entry: LogEntry,
    /// Its key: the order's UID, with what distinguishes the messages of one order.
    pub key: String,
}
