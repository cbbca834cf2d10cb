//! What customers are told. The wire contract fixes the first two, spacing included.

use orders_crds::{Money, Outcome, Reason};

use crate::purchase::Purchase;

/// The text for a decided order; `None` while it is undecided.
pub fn for_outcome(outcome: Outcome, purchase: &Purchase, balance: Option<Money>) -> Option<String> {
    match outcome {
        Outcome::Undecided => None,
        Outcome::Paid => Some("Заказ успешно оформлен".to_owned()),
        Outcome::Refused(Some(Reason::AccountNotFound)) => {
            Some(format!("Заказ не оформлен: пользователь {} не зарегистрирован.", purchase.login))
        }
        Outcome::Refused(Some(Reason::Cancelled)) => Some("Заказ отменён".to_owned()),
        Outcome::Refused(_) => Some(format!(
            "Недостаточно средств для оформления заказа. Текущий баланс: {}.  Сумма заказа: {} ",
            balance.unwrap_or_default().to_short_string(),
            purchase.amount.to_short_string()
        )),
    }
}

#[cfg(test)]
mod tests {
    use orders_crds::OrderSpec;

    use super::*;

    #[test]
    fn texts_are_those_of_the_contract_to_the_space() {
        let spec = OrderSpec { id: None, login: "a".into(), email: "a@b.cd".into(), cart_id: 0, amount: "1000".into() };
        let purchase = Purchase::read("uid", &spec).unwrap();
        let text = |outcome| for_outcome(outcome, &purchase, Some(Money::from_minor(80_000)));
        assert_eq!(text(Outcome::Paid).as_deref(), Some("Заказ успешно оформлен"));
        assert_eq!(
            text(Outcome::Refused(Some(Reason::InsufficientFunds))).as_deref(),
            Some("Недостаточно средств для оформления заказа. Текущий баланс: 800.0.  Сумма заказа: 1000.0 ")
        );
        assert_eq!(text(Outcome::Undecided), None);
    }
}
