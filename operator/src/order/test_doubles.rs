//! Test doubles of billing and notify for unit tests.

use std::{collections::VecDeque, sync::Mutex};

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orders_crds::{Money, Refusal};

use crate::ports::{Billing, Delivery, NameLookup, Names, Notice, Notify, Payment, Purchase, UnknownResult};

/// Billing and notify with scripted replies. It records the calls that it receives.
#[derive(Default)]
pub struct ScriptedServices {
    payments: Mutex<VecDeque<Result<Payment, UnknownResult>>>,
    deliveries: Mutex<VecDeque<Result<Delivery, UnknownResult>>>,
    lookups: Mutex<VecDeque<Result<NameLookup, UnknownResult>>>,
    pub calls: Mutex<Vec<String>>,
}

impl ScriptedServices {
    pub fn new(
        payments: impl IntoIterator<Item = Result<Payment, UnknownResult>>,
        deliveries: impl IntoIterator<Item = Result<Delivery, UnknownResult>>,
    ) -> Self {
        let (payments, deliveries) = (payments.into_iter().collect(), deliveries.into_iter().collect());
        let (payments, deliveries) = (Mutex::new(payments), Mutex::new(deliveries));
        ScriptedServices { payments, deliveries, ..ScriptedServices::default() }
    }

    /// Adds the replies of the archive.
    pub fn with_names(self, lookups: impl IntoIterator<Item = Result<NameLookup, UnknownResult>>) -> Self {
        ScriptedServices { lookups: Mutex::new(lookups.into_iter().collect()), ..self }
    }

    fn record(&self, call: &str, purchase: &Purchase) {
        self.calls.lock().unwrap().push(format!("{call} {}", purchase.key));
    }

    fn next_payment(&self) -> Result<Payment, UnknownResult> {
        self.payments.lock().unwrap().pop_front().expect("an unexpected call to billing")
    }
}

#[async_trait]
impl Billing for ScriptedServices {
    async fn charge(&self, purchase: &Purchase) -> Result<Payment, UnknownResult> {
        self.record("charge", purchase);
        self.next_payment()
    }

    async fn close(&self, purchase: &Purchase) -> Result<Payment, UnknownResult> {
        self.record("close", purchase);
        self.next_payment()
    }

    async fn refund(&self, purchase: &Purchase) -> Result<Money, UnknownResult> {
        self.record("refund", purchase);
        Ok(Money::from_minor(10_000))
    }
}

#[async_trait]
impl Notify for ScriptedServices {
    async fn notify(&self, purchase: &Purchase, notice: &Notice) -> Result<Delivery, UnknownResult> {
        self.record(&format!("notify {:?}", notice.outcome), purchase);
        self.deliveries.lock().unwrap().pop_front().expect("an unexpected call to notify")
    }
}

#[async_trait]
impl Names for ScriptedServices {
    async fn look_up(&self, _order: &ObjectMeta) -> Result<NameLookup, UnknownResult> {
        self.calls.lock().unwrap().push("look up".to_owned());
        self.lookups.lock().unwrap().pop_front().expect("an unexpected call to the archive")
    }
}

/// Billing charged the account.
pub fn charged() -> Result<Payment, UnknownResult> {
    Ok(Payment::Charged { balance: Money::from_minor(9_000) })
}

/// Billing refused the charge.
pub fn refused(refusal: Refusal) -> Result<Payment, UnknownResult> {
    Ok(Payment::Refused { refusal, balance: Some(Money::ZERO) })
}
