//! The texts of the messages to customers. The wire contract fixes the first and the last text,
//! including their spacing.

use orders_crds::{Login, Money, Outcome, Refusal};

/// Returns the text about an order of this login and amount with this outcome, or `None` if there
/// is nothing to notify the customer of. `balance` is the balance right after the charge or at the
/// refusal.
pub fn for_outcome(outcome: Outcome, login: &Login, amount: Money, balance: Option<Money>) -> Option<String> {
    let refusal = match outcome {
        Outcome::Paid => return Some("Заказ успешно оформлен".to_owned()),
        Outcome::Undecided | Outcome::Unknown => return None,
        Outcome::Refused(refusal) => refusal,
    };
    match refusal {
        Refusal::AccountNotFound => Some(format!("Заказ не оформлен: пользователь {login} не зарегистрирован.")),
        Refusal::Cancelled => Some("Заказ отменён".to_owned()),
        Refusal::DeadlineExceeded => Some("Заказ не оформлен: истёк срок оплаты.".to_owned()),
        Refusal::Refunded => Some(format!("Заказ отменён, деньги возвращены: {}", amount.to_short_string())),
        Refusal::AlreadyExists => Some("Заказ не оформлен: заказ с таким именем уже есть.".to_owned()),
        // An invalid order has no address to send a message to.
        Refusal::InvalidOrder => None,
        Refusal::InsufficientFunds => Some(format!(
            "Недостаточно средств для оформления заказа. Текущий баланс: {}.  Сумма заказа: {} ",
            balance.unwrap_or_default().to_short_string(),
            amount.to_short_string()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_exactly_that_of_the_wire_contract() {
        let login = Login::try_from("a".to_owned()).unwrap();
        let text = |outcome| for_outcome(outcome, &login, Money::from_minor(100_000), Some(Money::from_minor(80_000)));
        assert_eq!(text(Outcome::Paid).as_deref(), Some("Заказ успешно оформлен"));
        assert_eq!(
            text(Outcome::Refused(Refusal::InsufficientFunds)).as_deref(),
            Some("Недостаточно средств для оформления заказа. Текущий баланс: 800.0.  Сумма заказа: 1000.0 ")
        );
        for outcome in [Outcome::Undecided, Outcome::Unknown, Outcome::Refused(Refusal::InvalidOrder)] {
            assert_eq!(text(outcome), None, "{outcome:?}");
        }
    }
}
