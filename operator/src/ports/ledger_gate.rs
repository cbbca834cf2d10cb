//! Holds the calls to billing back until it is known which ledger billing has.
//!
//! While billing does not respond, the operator cannot know it, but still shows that payments are unknown,
//! notifies customers and accepts cancellations. A call that got through just when billing is back could
//! reach another ledger than that of the orders.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use orders_crds::{Money, RetryStep};

use super::{Billing, LateReply, Payment, Purchase, UnknownResult};

/// Whether calls that move money or open accounts may be made. Closed at first.
#[derive(Clone, Debug, Default)]
pub struct LedgerGate(Arc<AtomicBool>);

impl LedgerGate {
    /// Lets calls through, or holds them back.
    pub fn set_open(&self, is_open: bool) {
        self.0.store(is_open, Ordering::SeqCst);
    }

    /// Checks that calls may be made.
    ///
    /// # Errors
    /// [`UnknownResult`], while it is not known which ledger billing has.
    pub fn check(&self) -> Result<(), UnknownResult> {
        if self.0.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(UnknownResult("billing does not respond: it is not known yet which ledger it has".to_owned()))
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
