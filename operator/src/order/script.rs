//! Test doubles of billing and notify for unit tests.

use std::{collections::VecDeque, sync::Mutex};

use async_trait::async_trait;
use orders_crds::{Money, Refusal};

use crate::ports::{Billing, Delivery, NoAnswer, Notice, Notify, Payment, Purchase};

/// Billing and notify with scripted answers. It records the calls that it receives.
#[derive(Default)]
pub struct Script {
    payments: Mutex<VecDeque<Result<Payment, NoAnswer>>>,
    deliveries: Mutex<VecDeque<Result<Delivery, NoAnswer>>>,
    pub asked: Mutex<Vec<String>>,
}

impl Script {
    pub fn new(
        payments: impl IntoIterator<Item = Result<Payment, NoAnswer>>,
        deliveries: impl IntoIterator<Item = Result<Delivery, NoAnswer>>,
    ) -> Self {
        let (payments, deliveries) = (payments.into_iter().collect(), deliveries.into_iter().collect());
        Script { payments: Mutex::new(payments), deliveries: Mutex::new(deliveries), asked: Mutex::default() }
    }

    fn asked(&self, what: &str, purchase: &Purchase) {
        self.asked.lock().unwrap().push(format!("{what} {}", purchase.key));
    }

    fn payment(&self) -> Result<Payment, NoAnswer> {
        self.payments.lock().unwrap().pop_front().expect("billing is not asked so often")
    }
}

#[async_trait]
impl Billing for Script {
    async fn charge(&self, purchase: &Purchase) -> Result<Payment, NoAnswer> {
        self.asked("charge", purchase);
        self.payment()
    }

    async fn close(&self, purchase: &Purchase) -> Result<Payment, NoAnswer> {
        self.asked("close", purchase);
        self.payment()
    }

    async fn refund(&self, purchase: &Purchase) -> Result<Money, NoAnswer> {
        self.asked("refund", purchase);
        Ok(Money::from_minor(10_000))
    }
}

#[async_trait]
impl Notify for Script {
    async fn notify(&self, purchase: &Purchase, notice: &Notice) -> Result<Delivery, NoAnswer> {
        self.asked(&format!("notify {:?}", notice.outcome), purchase);
        self.deliveries.lock().unwrap().pop_front().expect("notify is not asked so often")
    }
}

/// Billing charged the account.
pub fn charged() -> Result<Payment, NoAnswer> {
    Ok(Payment::Charged { balance: Money::from_minor(9_000) })
}

/// Billing refused the charge.
pub fn refused(refusal: Refusal) -> Result<Payment, NoAnswer> {
    Ok(Payment::Refused { refusal, balance: Some(Money::ZERO) })
}
