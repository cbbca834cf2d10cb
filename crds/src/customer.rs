//! The `Customer` resource.

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

/// Who orders: the login of a billing account, and where its owner is reached.
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
    doc = "A customer: creating one opens the billing account of its login. Deleting it leaves the account, its money and its orders as they are.",
    selectable = ".spec.login",
    printcolumn(name = "Login", type_ = "string", json_path = ".spec.login", description = "The login of the account"),
    printcolumn(name = "E-Mail", type_ = "string", json_path = ".spec.email", description = "Where the customer is reached"),
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
        description = "The balance as of the last change that the operator saw"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CustomerSpec {
    /// Login of the billing account. It cannot be changed.
    #[schemars(length(min = 1, max = 64), regex(pattern = LOGIN_PATTERN))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("login is immutable: make another customer"))]
    pub login: String,

    /// Address that the customer is reached at. Each order has an address of its own, which its outcome is e-mailed to.
    #[schemars(length(min = 3, max = 254), regex(pattern = EMAIL_PATTERN))]
    #[x_kube(validation = Rule::new("self.indexOf('@') <= 64").message("email must have at most 64 characters before the @"))]
    pub email: String,
}

/// How the customer's account stands. Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomerStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// AccountOpened: True once there is an account, Unknown while billing does not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The account's balance as of the last change that the operator saw: an order's
    /// charge or refund, a few seconds ago at most. A refill shows with the next of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub balance: Option<Money>,
}

/// The annotation with the Idempotency-Key of the request that made a customer.
pub const KEY_ANNOTATION: &str = "arch.homework/idempotency-key";

impl CustomerStatus {
    /// Whether there is an account.
    pub fn is_account_open(&self) -> bool {
        conditions::find(&self.conditions, ConditionType::AccountOpened).is_some_and(|condition| condition.status == "True")
    }
}
