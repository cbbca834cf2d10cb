//! The `Customer` resource: its spec, its status and its annotation.

#![allow(clippy::duplicated_attributes, reason = "each printcolumn has its own type_")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    conditions::{self, ConditionType},
    identity::{EMAIL_PATTERN, LOGIN_PATTERN},
    money::Money,
};

/// The customer: the login of a billing account and the e-mail address of its owner.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "arch.homework",
    version = "v1",
    kind = "Customer",
    plural = "customers",
    shortname = "cust",
    category = "shop",
    namespaced,
    status = "CustomerStatus",
    derive = "PartialEq",
    doc = "Creating a Customer opens the billing account of its login. Deleting a Customer leaves the account, its money and its orders as they are.",
    selectable = ".spec.login",
    printcolumn(name = "Login", type_ = "string", json_path = ".spec.login", description = "The login of the account"),
    printcolumn(name = "E-Mail", type_ = "string", json_path = ".spec.email", description = "The customer's e-mail address"),
    printcolumn(
        name = "Account",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"AccountOpened\")].reason",
        description = "Opened, AlreadyOpen, or why there is no account yet"
    ),
    printcolumn(
        name = "Balance",
        type_ = "string",
        json_path = ".status.balance",
        description = "The account's balance when the operator last read it"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CustomerSpec {
    /// The login of the billing account: 1 to 64 ASCII letters, digits, '.', '_', '@', '+' or '-',
    /// starting with a letter or a digit. Immutable.
    #[schemars(length(min = 1, max = 64), regex(pattern = LOGIN_PATTERN))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("login is immutable: make another customer"))]
    pub login: String,

    /// The customer's e-mail address: at most 254 characters, at most 64 of them before the @, and a
    /// domain with at least one dot. It can be changed. The outcome of an order is not e-mailed to
    /// this address but to the order's own spec.email.
    #[schemars(length(min = 3, max = 254), regex(pattern = EMAIL_PATTERN))]
    #[x_kube(validation = Rule::new("self.indexOf('@') <= 64").message("email must have at most 64 characters before the @"))]
    pub email: String,
}

/// The observed state of the customer's account. Only the operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomerStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// AccountOpened is True once the account exists, and Unknown while billing does not answer and
    /// the account was not opened before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The account's balance when the operator last read it: a decimal with two places, as a string.
    /// The operator reads it about five seconds after an order of this login is charged, refused or
    /// refunded. A refill appears when the operator next reads the balance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub balance: Option<Money>,
}

/// The annotation with the Idempotency-Key of the request that created a customer.
pub const KEY_ANNOTATION: &str = "arch.homework/idempotency-key";

impl CustomerStatus {
    /// Whether the account exists.
    pub fn is_account_open(&self) -> bool {
        conditions::find(&self.conditions, ConditionType::AccountOpened).is_some_and(|condition| condition.status == "True")
    }
}
