//! The requests and responses of billing's HTTP API.

use orders_crds::{Login, Money, Outcome, money::json_number};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Amount, outcome};

/// Request of `POST /billing/withdraw` and `POST /billing/charges/{key}/close`: the amount to
/// charge.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Withdrawal {
    /// The account to charge.
    #[schema(value_type = String, example = "Aurore56")]
    pub login: Login,
    /// The amount to charge.
    #[serde(with = "json_number")]
    #[schema(value_type = f64, example = 100)]
    pub balance: Money,
    /// The order that the charge is authorized for. The charge is captured or voided later. Without
    /// this field, the charge is captured at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<NewAuthorization>,
}

/// The maximum length of an authorization's reference, in characters: a namespace, a slash and a
/// name in Kubernetes.
pub const MAX_REFERENCE: usize = 317;

/// The maximum size of an authorization's metadata, in bytes of JSON.
pub const MAX_METADATA: usize = 4096;

/// The order that a charge is authorized for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAuthorization {
    /// The namespace and name of the order. Of all charges with one reference, only one is ever made.
    #[schemars(length(min = 1, max = MAX_REFERENCE))]
    #[schema(min_length = 1, max_length = 317, example = "shop/order-14")]
    pub reference: String,
    /// The order without its status. The caller needs it to settle the charge. Billing stores it
    /// until the charge is captured or voided, and does not interpret it. At most 4096 bytes.
    #[schema(value_type = Object)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

impl NewAuthorization {
    /// Checks the sizes of the reference and the metadata, and returns the metadata as JSON.
    ///
    /// # Errors
    /// A description of the field that is empty or too large.
    pub fn validate(&self) -> Result<String, String> {
        if !(1..=MAX_REFERENCE).contains(&self.reference.len()) || !self.reference.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("authorization.reference: 1 to {MAX_REFERENCE} visible ASCII characters"));
        }
        let metadata = serde_json::to_string(&self.metadata).map_err(|error| format!("authorization.metadata: {error}"))?;
        // PostgreSQL stores no zero bytes, and JSON escapes them.
        if metadata.len() > MAX_METADATA {
            return Err(format!("authorization.metadata: at most {MAX_METADATA} bytes"));
        }
        Ok(metadata)
    }
}

/// An authorized charge that is neither captured nor voided yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Authorization {
    /// Number of the charge's transaction.
    pub id: i64,
    /// The charge's key.
    pub key: String,
    /// The account.
    pub login: String,
    /// The amount that was charged.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub amount: Money,
    /// The balance right after the charge.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub balance: Money,
    /// When the charge was made, in microseconds since 1970-01-01 UTC.
    pub created_at: i64,
    /// The namespace and name of the order.
    pub reference: String,
    /// The metadata of the request.
    #[schema(value_type = Object)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// The phase of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ChargePhase {
    /// The charge was made, and is to be captured or voided.
    Authorized,
    /// The charge is final. It can only be refunded.
    Captured,
    /// The charge was given back as a whole.
    Voided,
    /// Any value that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The maximum number of charges in one request to capture them.
pub const MAX_CAPTURES: usize = 1000;

/// Request of `POST /billing/charges/capture`: the charges to capture.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CaptureRequest {
    /// The keys of the charges, at most 1000.
    #[schema(max_items = 1000)]
    pub keys: Vec<String>,
}

/// Response to `POST /billing/charges/capture`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CapturedCount {
    /// The number of charges that this call captured. The others were captured or voided before,
    /// or were refused.
    pub captured: usize,
}

/// Response to `POST /billing/charges/{key}/void`: a charge that was given back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Void {
    /// The account.
    pub login: String,
    /// The balance right after the void.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub balance: Money,
    /// The charge's key.
    pub key: String,
    /// The amount that was given back.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub amount: Money,
    /// Whether the charge was voided before this call.
    #[serde(default)]
    #[schema(required = true)]
    pub repeated: bool,
}

/// The outcome of a charge. A refusal is also answered with status 200.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Charge {
    /// The account.
    #[schema(value_type = String)]
    pub login: Login,
    /// The balance right after the charge or at the refusal. Null if there is no account.
    #[schema(value_type = Option<f64>)]
    pub balance: Option<Amount>,
    /// The charge's key.
    pub key: String,
    /// The amount that was to be charged.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub amount: Money,
    /// The outcome, which is final for the key.
    #[serde(with = "outcome")]
    #[schema(value_type = outcome::ChargeOutcome)]
    pub outcome: Outcome,
    /// Whether an earlier call decided this key.
    #[serde(default)]
    #[schema(required = true)]
    pub repeated: bool,
}

/// Response to `GET /billing/charges/{key}`: the current state of a charge.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChargeState {
    /// The account.
    pub login: String,
    /// The balance right after the charge or at the refusal. Null if there is no account.
    #[schema(value_type = Option<f64>)]
    pub balance: Option<Amount>,
    /// The charge's key.
    pub key: String,
    /// The amount that was to be charged.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub amount: Money,
    /// The outcome, which is final for the key.
    #[serde(with = "outcome")]
    #[schema(value_type = outcome::ChargeOutcome)]
    pub outcome: Outcome,
    /// The phase of the charge. Absent if it was refused or closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ChargePhase>,
    /// The amount that was given back: the sum of the refunds, or the whole amount of a voided
    /// charge.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub refunded: Money,
}

/// Request of `POST /billing/refund`: a charge to refund, in part or in full.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefundRequest {
    /// The charge's key.
    pub charge: String,
    /// The account that was charged.
    #[schema(value_type = String, example = "Aurore56")]
    pub login: Login,
    /// The amount to refund. Together with earlier refunds, it is at most the amount of the charge.
    #[serde(with = "json_number")]
    #[schema(value_type = f64, example = 100)]
    pub balance: Money,
}

/// A refund that was made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Refund {
    /// The account.
    #[schema(value_type = String)]
    pub login: Login,
    /// The balance right after the refund.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub balance: Money,
    /// The refund's key.
    pub key: String,
    /// The charge's key.
    pub charge: String,
    /// The amount refunded.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub amount: Money,
    /// Whether an earlier call decided this key.
    #[serde(default)]
    #[schema(required = true)]
    pub repeated: bool,
}

/// An account and its balance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Account {
    /// Its login.
    #[schema(value_type = String, example = "Aurore56")]
    pub login: Login,
    /// Its balance.
    #[serde(with = "json_number")]
    #[schema(value_type = f64, example = 900.0)]
    pub balance: Money,
}

/// Response to `PUT /billing/account/{login}`: an account, opened now or before.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OpenAccount {
    /// Its login.
    #[schema(value_type = String, example = "Aurore56")]
    pub login: Login,
    /// Its current balance.
    #[serde(with = "json_number")]
    #[schema(value_type = f64, example = 900.0)]
    pub balance: Money,
    /// Whether this key opened the account. False if the account existed before.
    pub opened: bool,
}

/// Request of `POST /billing/refill`: an amount to add to a balance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refill {
    /// The account.
    #[schema(value_type = String, example = "Aurore56")]
    pub login: Login,
    /// The amount to add: greater than zero, at most two decimals.
    #[serde(with = "json_number")]
    #[schema(value_type = f64, example = 900)]
    pub balance: Money,
}

/// A transaction with its postings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportedTransaction {
    /// Number of the transaction, in the order of recording.
    pub id: i64,
    /// `refill`, `charge`, `capture`, `void` or `refund`.
    pub kind: String,
    /// Key of the transaction.
    pub key: String,
    /// For a capture, a void or a refund, the key of the charge.
    pub charge_key: Option<String>,
    /// Login of the customer.
    pub login: String,
    /// The requested amount.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub amount: Money,
    /// `done`, `insufficient_funds`, `account_not_found`, `balance_limit`, `closed` or
    /// `already_exists`.
    pub outcome: String,
    /// When the transaction was recorded, in microseconds since 1970-01-01 UTC.
    #[serde(default)]
    #[schema(required = true)]
    pub created_at: i64,
    /// The postings.
    pub postings: Vec<ExportedPosting>,
}

/// One leg of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportedPosting {
    /// `customer:LOGIN`, `cash`, `authorized` or `revenue`.
    pub account: String,
    /// The amount by which the balance of the account changed.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub amount: Money,
}

/// An account: its stored balance and the sum of its postings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportedAccount {
    /// Login of the customer.
    pub login: String,
    /// The stored balance.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub balance: Money,
    /// The sum of the account's postings, read in the same statement.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub posted: Money,
}

/// Response to `GET /billing/ledger`: which ledger this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerId {
    /// The ID, a UUID. It is in the database, so backups and copies of the database have the same ID.
    #[schema(example = "6f9d2a1c-6a3e-4b43-9d0d-0d5a3c1f7e11")]
    pub id: String,
}

/// Totals of the whole ledger, read in one statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    /// Number of transactions.
    pub transactions: i64,
    /// Number of postings.
    pub postings: i64,
    /// The sum of all postings: zero if the books balance.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub sum: Money,
}
