//! Billing's HTTP calls.

use orders_crds::{Login, Money, Outcome, money::json_number};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Amount, outcome};

/// `POST /billing/withdraw` and `POST /billing/charges/{key}/close`: the amount to charge.
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

/// The outcome of a charge. A refusal is an answer as well, with status 200.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Charge {
    /// The account.
    #[schema(value_type = String)]
    pub login: Login,
    /// The balance right after the charge or at the refusal; null without an account.
    #[schema(value_type = Option<f64>)]
    pub balance: Option<Amount>,
    /// The charge's key.
    pub key: String,
    /// The amount that was to be charged.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub amount: Money,
    /// The outcome: final for the key.
    #[serde(with = "outcome")]
    #[schema(value_type = outcome::Written)]
    pub outcome: Outcome,
    /// Whether an earlier call decided this key.
    #[serde(default)]
    pub repeated: bool,
}

/// `GET /billing/charges/{key}`: a charge as it stands.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChargeState {
    /// The account.
    pub login: String,
    /// The balance right after the charge or at the refusal; null without an account.
    #[schema(value_type = Option<f64>)]
    pub balance: Option<Amount>,
    /// The charge's key.
    pub key: String,
    /// The amount that was to be charged.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub amount: Money,
    /// The outcome: final for the key.
    #[serde(with = "outcome")]
    #[schema(value_type = outcome::Written)]
    pub outcome: Outcome,
    /// How much of it was refunded.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub refunded: Money,
}

/// `POST /billing/refund`: a charge to refund, in part or whole.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefundRequest {
    /// The charge's key.
    pub charge: String,
    /// The account that was charged.
    #[schema(value_type = String, example = "Aurore56")]
    pub login: Login,
    /// The amount to refund; with earlier refunds at most the charge.
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

/// `PUT /billing/account/{login}`: an account that exists now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OpenAccount {
    /// Its login.
    #[schema(value_type = String, example = "Aurore56")]
    pub login: Login,
    /// Its balance now.
    #[serde(with = "json_number")]
    #[schema(value_type = f64, example = 900.0)]
    pub balance: Money,
    /// Whether this key opened it; false if it existed before.
    pub opened: bool,
}

/// `POST /billing/refill`: an amount to add to a balance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refill {
    /// The account.
    #[schema(value_type = String, example = "Aurore56")]
    pub login: Login,
    /// The amount to add.
    #[serde(with = "json_number")]
    #[schema(value_type = f64, example = 900)]
    pub balance: Money,
}

/// A transaction with its postings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportedTransaction {
    /// Number in order of recording.
    pub id: i64,
    /// `refill`, `charge` or `refund`.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// Of a refund: the key of the charge.
    pub charge_key: Option<String>,
    /// The customer.
    pub login: String,
    /// How much was asked for.
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
    /// What the account changed by.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub amount: Money,
}

/// An account: the kept balance beside the sum of its postings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportedAccount {
    /// The customer.
    pub login: String,
    /// The kept balance.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub balance: Money,
    /// The sum of the account's postings, taken in the same statement.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub posted: Money,
}

/// The whole ledger in a few numbers, taken in one statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    /// How many transactions there are.
    pub transactions: i64,
    /// How many postings there are.
    pub postings: i64,
    /// The sum of all postings: zero if the books balance.
    #[serde(with = "json_number")]
    #[schema(value_type = f64)]
    pub sum: Money,
}
