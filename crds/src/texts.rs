//! What customers are told. The wire contract fixes the first two, spacing included.

use crate::{Login, Money, Outcome, Reason};

/// The text about a decided order of this login and amount; `None` while it is
/// undecided. `balance` is that right after the charge or at the refusal.
pub fn for_outcome(outcome: Outcome, login: &Login, amount: Money, balance: Option<Money>) -> Option<String> {
    match outcome {
        Outcome::Undecided => None,
        Outcome::Paid => Some("Заказ успешно оформлен".to_owned()),
        Outcome::Refused(Some(Reason::AccountNotFound)) => {
            Some(format!("Заказ не оформлен: пользователь {login} не зарегистрирован."))
        }
        Outcome::Refused(Some(Reason::Cancelled)) => Some("Заказ отменён".to_owned()),
        Outcome::Refused(Some(Reason::DeadlineExceeded)) => Some("Заказ не оформлен: истёк срок оплаты.".to_owned()),
        Outcome::Refused(Some(Reason::Refunded)) => {
            Some(format!("Заказ отменён, деньги возвращены: {}", amount.to_short_string()))
        }
        Outcome::Refused(_) => Some(format!(
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
    fn texts_are_those_of_the_contract_to_the_space() {
        let login = Login::try_from("a".to_owned()).unwrap();
        let text = |outcome| for_outcome(outcome, &login, Money::from_minor(100_000), Some(Money::from_minor(80_000)));
        assert_eq!(text(Outcome::Paid).as_deref(), Some("Заказ успешно оформлен"));
        assert_eq!(
            text(Outcome::Refused(Some(Reason::InsufficientFunds))).as_deref(),
            Some("Недостаточно средств для оформления заказа. Текущий баланс: 800.0.  Сумма заказа: 1000.0 ")
        );
        assert_eq!(text(Outcome::Undecided), None);
    }
}
