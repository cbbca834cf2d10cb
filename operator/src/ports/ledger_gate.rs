//! Holds the calls to billing back until it is known which ledger billing has.
//!
//! While billing does not respond, the operator cannot know it, but still shows that payments are unknown,
//! notifies customers and accepts cancellations. A call that got through just when billing is back could
//! reach another ledger than that of the orders.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use orders_contracts::LEDGER;
use orders_crds::{Money, RetryStep};
use reqwest::RequestBuilder;

use super::{Billing, LateReply, Payment, Purchase, UnknownResult};

/// Which calls a [`LedgerGate`] lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Those to the ledger with this ID. Billing refuses the calls that are for another one.
    To(String),
    /// All: billing is of a version without IDs.
    ToAny,
}

/// Whether calls that move money or open accounts may be made. Closed at first.
#[derive(Clone, Debug, Default)]
pub struct LedgerGate(Arc<RwLock<Option<Pass>>>);

impl LedgerGate {
    /// Lets these calls through, or holds all back.
    pub fn set(&self, pass: Option<Pass>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = pass;
    }

    /// Checks that calls may be made.
    ///
    /// # Errors
    /// [`UnknownResult`], while it is not known which ledger billing has.
    pub fn check(&self) -> Result<(), UnknownResult> {
        self.pass().map(drop)
    }

    /// Adds the ID of the ledger that the request is for.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn address(&self, request: RequestBuilder) -> Result<RequestBuilder, UnknownResult> {
        Ok(match self.pass()? {
            Pass::To(ledger) => request.header(LEDGER, ledger),
            Pass::ToAny => request,
        })
    }

    fn pass(&self) -> Result<Pass, UnknownResult> {
        let unknown = || UnknownResult("billing does not respond: it is not known yet which ledger it has".to_owned());
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(unknown)
    }
}

/// Billing behind a [`LedgerGate`].
pub struct GatedBilling {
    billing: Arc<dyn Billing>,
    gate: LedgerGate,
}

impl GatedBilling {
    /// Holds the calls to `billing` back while the gate is closed.
    pub fn new(billing: Arc<dyn Billing>, gate: LedgerGate) -> Self {
        GatedBilling { billing, gate }
    }
}

#[async_trait]
impl Billing for GatedBilling {
    async fn charge(&self, purchase: &Purchase) -> Result<Payment, UnknownResult> {
        self.gate.check()?;
        self.billing.charge(purchase).await
    }

    async fn close(&self, purchase: &Purchase) -> Result<Payment, UnknownResult> {
        self.gate.check()?;
        self.billing.close(purchase).await
    }

    async fn refund(&self, purchase: &Purchase) -> Result<Money, UnknownResult> {
        self.gate.check()?;
        self.billing.refund(purchase).await
    }

    fn late_reply(&self, step: RetryStep, purchase: &Purchase) -> Option<LateReply> {
        self.billing.late_reply(step, purchase)
    }
}
