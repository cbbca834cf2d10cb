//! The data of an order that billing and notify need, read from the spec and validated.

use orders_contracts::billing::NewAuthorization;
use orders_crds::{EMail, Login, Money, OrderSpec, order::charge_key};

/// The amount to charge, the account to charge, and the address to notify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// The key of the charge, and of its refund: see [`charge_key`].
    pub key: String,
    /// The account to charge.
    pub login: Login,
    /// The address to notify of the outcome.
    pub email: EMail,
    /// The amount to charge.
    pub amount: Money,
    /// The order as billing stores it with the charge, until the charge is captured or voided.
    /// `None`: the charge is captured at once.
    pub authorization: Option<NewAuthorization>,
}

/// Why an order cannot be read. Admission refuses such an order. It exists only if it was stored
/// before a rule was added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidSpec {
    field: &'static str,
    problem: String,
}

impl Purchase {
    /// Reads the spec of the order with this UID, for this attempt to charge it.
    ///
    /// # Errors
    /// [`InvalidSpec`], which names the field.
    pub fn read(uid: &str, attempt: i32, spec: &OrderSpec) -> Result<Self, InvalidSpec> {
        let invalid = |field, problem: &dyn std::fmt::Display| InvalidSpec { field, problem: problem.to_string() };
        Ok(Purchase {
            key: charge_key(uid, attempt),
            login: Login::try_from(spec.login.clone()).map_err(|error| invalid("spec.login", &error))?,
            email: EMail::try_from(spec.email.clone()).map_err(|error| invalid("spec.email", &error))?,
            amount: Money::positive(&spec.amount).map_err(|error| invalid("spec.amount", &error))?,
            authorization: None,
        })
    }
}
