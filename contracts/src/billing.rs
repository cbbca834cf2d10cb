//! The requests and responses of billing's HTTP API.

use orders_crds::{Login, Money, Outcome, money::json_number};
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
    /// The amount that was refunded.
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
    /// `refill`, `charge` or `refund`.
    pub kind: String,
    /// Key of the transaction.
    pub key: String,
    /// For a refund, the key of the charge.
    pub charge_key: Option<String>,
    /// Login of the customer.
    pub login: String,
    /// The requested amount.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub amount: Money,
    /// `done`, `insufficient_funds`, `account_not_found`, `balance_limit` or `closed`.
    pub outcome: String,
    /// The postings.
    pub postings: Vec<ExportedPosting>,
}

/// One leg of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportedPosting {
    /// `customer:LOGIN`, `cash` or `revenue`.
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
