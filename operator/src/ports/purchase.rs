//! An order, read and checked: what the services are asked for.

use orders_crds::{EMail, Login, Money, OrderSpec, order::charge_key};

/// What has to be paid, by whom, and whom to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// The key of the charge, and of its refund: see [`charge_key`].
    pub key: String,
    /// The account to charge.
    pub login: Login,
    /// Where to tell the outcome.
    pub email: EMail,
    /// How much to charge.
    pub amount: Money,
}

/// An order that cannot be worked on. Admission refuses these; one can only be
/// met if it was stored before a rule was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Unreadable {
    field: &'static str,
    problem: String,
}

impl Purchase {
    /// Reads the spec of the order with this UID, for this attempt to charge it.
    ///
    /// # Errors
    /// [`Unreadable`], naming the field.
    pub fn read(uid: &str, attempt: i32, spec: &OrderSpec) -> Result<Self, Unreadable> {
        let unreadable = |field, problem: &dyn std::fmt::Display| Unreadable { field, problem: problem.to_string() };
        Ok(Purchase {
            key: charge_key(uid, attempt),
            login: Login::try_from(spec.login.clone()).map_err(|error| unreadable("spec.login", &error))?,
            email: EMail::try_from(spec.email.clone()).map_err(|error| unreadable("spec.email", &error))?,
            amount: Money::positive(&spec.amount).map_err(|error| unreadable("spec.amount", &error))?,
        })
    }
}
