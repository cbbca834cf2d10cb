//! The rules that must hold, and a pure function that checks them over a snapshot.

use std::collections::HashMap;

use orders_contracts::{billing::ExportedTransaction as Transaction, notify::KeyedEntry as Message};
use orders_crds::{Money, Outcome};
use serde::Serialize;
use strum::EnumIter;

use crate::collect::{OrderFacts, Snapshot};

/// A rule that the order service guarantees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, EnumIter)]
pub enum Rule {
    /// The postings of the whole ledger, and of each transaction, sum to zero.
    PostingsSumToZero,
    /// A transaction that is done has two postings of its amount. Any other transaction has none.
    PostingsMatchTransaction,
    /// Every balance is the sum of its postings.
    BalanceIsSumOfPostings,
    /// No balance is negative.
    NoNegativeBalance,
    /// A paid order has exactly one charge that is not fully refunded. The charge has the order's
    /// amount and login.
    PaidOrderHasOneCharge,
    /// A refused order has no charge that is not fully refunded.
    RefusedOrderHasNoCharge,
    /// A charge that is not fully refunded belongs to an order.
    ChargeHasOrder,
    /// The refunds of a charge never exceed its amount.
    RefundWithinCharge,
    /// An order whose message was sent has exactly one message in the log.
    OrderHasOneMessage,
}

impl Rule {
    /// Returns the rule in words.
    pub const fn in_words(self) -> &'static str {
        match self {
            Rule::PostingsSumToZero => "all postings sum to zero",
            Rule::PostingsMatchTransaction => "each transaction has the postings of its amount",
            Rule::BalanceIsSumOfPostings => "every balance is the sum of its postings",
            Rule::NoNegativeBalance => "no balance is negative",
            Rule::PaidOrderHasOneCharge => "each paid order has exactly one charge of its amount",
            Rule::RefusedOrderHasNoCharge => "no refused order has a charge outstanding",
            Rule::ChargeHasOrder => "no charge is without an order",
            Rule::RefundWithinCharge => "no charge is given back beyond what it took",
            Rule::OrderHasOneMessage => "each order that was told has its one message",
        }
    }
}

/// A violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The violated rule.
    pub rule: Rule,
    /// The order (`NAMESPACE/NAME`), if the violation concerns one order.
    pub order: Option<String>,
    /// The finding, with the keys to look it up.
    pub detail: String,
}

/// Checks every rule.
pub fn check(snapshot: &Snapshot) -> Vec<Violation> {
    let ledger = Index::of(snapshot);
    let mut violations = Vec::new();
    let mut found = |rule, order: Option<&OrderFacts>, detail: String| {
        violations.push(Violation { rule, order: order.map(|order| order.name.clone()), detail });
    };

    if snapshot.summary.sum != Money::ZERO {
        found(Rule::PostingsSumToZero, None, format!("the ledger's postings sum to {}", snapshot.summary.sum));
    }
    for transaction in &snapshot.transactions {
        check_postings(transaction, &mut found);
    }
    for account in &snapshot.accounts {
        if account.balance != account.posted {
            let detail =
                format!("account {}: the balance is {}, its postings sum to {}", account.login, account.balance, account.posted);
            found(Rule::BalanceIsSumOfPostings, None, detail);
        }
        if account.balance < Money::ZERO {
            found(Rule::NoNegativeBalance, None, format!("account {}: the balance is {}", account.login, account.balance));
        }
    }
    for order in &snapshot.orders {
        check_order(order, &ledger, &mut found);
    }
    for (key, charges) in &ledger.charges {
        for charge in charges.iter().filter(|charge| charge.outcome == "done") {
            let refunded = ledger.refunded(key);
            if refunded > charge.amount {
                found(
                    Rule::RefundWithinCharge,
                    None,
                    format!("charge {key} of {} took {}, and {refunded} was given back", charge.login, charge.amount),
                );
            }
            if !snapshot.known.contains(uid_of(key)) && refunded < charge.amount {
                found(
                    Rule::ChargeHasOrder,
                    None,
                    format!("charge {key} of {}: {} was taken, and there is no order with this UID", charge.login, charge.amount),
                );
            }
        }
    }
    violations
}

fn check_postings(transaction: &Transaction, found: &mut impl FnMut(Rule, Option<&OrderFacts>, String)) {
    let sum: i64 = transaction.postings.iter().map(|posting| posting.amount.minor()).sum();
    let name = || format!("transaction {} ({} {} of {})", transaction.id, transaction.kind, transaction.key, transaction.login);
    if sum != 0 {
        found(Rule::PostingsSumToZero, None, format!("{}: its postings sum to {}", name(), Money::from_minor(sum)));
    }
    let customer = format!("customer:{}", transaction.login);
    let change = if transaction.kind == "charge" { -transaction.amount.minor() } else { transaction.amount.minor() };
    let of_customer: i64 =
        transaction.postings.iter().filter(|posting| posting.account == customer).map(|posting| posting.amount.minor()).sum();
    let expected = if transaction.outcome == "done" { (2, change) } else { (0, 0) };
    if (transaction.postings.len(), of_customer) != expected {
        let detail = format!(
            "{}: {} of {}, but {} postings that change the account by {}",
            name(),
            transaction.outcome,
            transaction.amount,
            transaction.postings.len(),
            Money::from_minor(of_customer)
        );
        found(Rule::PostingsMatchTransaction, None, detail);
    }
}

fn check_order(order: &OrderFacts, ledger: &Index<'_>, found: &mut impl FnMut(Rule, Option<&OrderFacts>, String)) {
    // Fully refunded charges do not count: a paid order may have been cancelled since the audit
    // read it.
    let charges = ledger.charges_of(&order.uid).filter(|charge| charge.outcome == "done");
    let (given_back, done): (Vec<&Transaction>, Vec<&Transaction>) =
        charges.partition(|charge| ledger.refunded(&charge.key) >= charge.amount);
    match order.outcome {
        // Billing may have a charge or none: the status of the order does not show it.
        Outcome::Undecided | Outcome::Unknown => return,
        Outcome::Paid => match &*done {
            [charge] if Some(charge.amount) == order.amount && charge.login == order.login => {}
            [charge] => found(
                Rule::PaidOrderHasOneCharge,
                Some(order),
                format!(
                    "UID {}: charged {} to {}, not {:?} to {}",
                    order.uid,
                    charge.amount,
                    charge.login,
                    order.amount.map(|a| a.to_string()),
                    order.login
                ),
            ),
            [] if order.cancel_requested && given_back.len() == 1 => {}
            charges => found(Rule::PaidOrderHasOneCharge, Some(order), format!("UID {}: {} charges", order.uid, charges.len())),
        },
        Outcome::Refused(refusal) => {
            let outstanding: i64 = done.iter().map(|charge| charge.amount.minor() - ledger.refunded(&charge.key).minor()).sum();
            // After a requested retry, the order may have been charged again since the audit read
            // it.
            if outstanding > 0 && !order.retry_requested {
                let reason = refusal.reason();
                found(
                    Rule::RefusedOrderHasNoCharge,
                    Some(order),
                    format!("UID {}: refused because {reason}, but {} was taken", order.uid, Money::from_minor(outstanding)),
                );
            }
        }
    }
    if order.notified {
        match ledger.messages.get(&*order.message_key).map(Vec::as_slice).unwrap_or_default() {
            [message] if sent_to(message, order) => {}
            [message] => found(
                Rule::OrderHasOneMessage,
                Some(order),
                format!(
                    "UID {}: message {} to {} <{}>, sent: {}",
                    order.uid, message.entry.id, message.entry.login, message.entry.email, message.entry.is_sended
                ),
            ),
            messages => found(Rule::OrderHasOneMessage, Some(order), format!("UID {}: {} messages", order.uid, messages.len())),
        }
    }
}

fn sent_to(message: &Message, order: &OrderFacts) -> bool {
    message.entry.is_sended && message.entry.login == order.login && message.entry.email == order.email
}

/// Returns the UID of the order that a charge's key belongs to. See
/// [`orders_crds::order::charge_key`].
fn uid_of(key: &str) -> &str {
    key.split_once('.').map_or(key, |(uid, _)| uid)
}

/// The transactions of the ledger and the messages of the log, indexed by key. A key may occur more
/// than once. The audit reports this as a violation, because it does not rely on the services'
/// constraints.
struct Index<'a> {
    charges: HashMap<&'a str, Vec<&'a Transaction>>,
    orders: HashMap<&'a str, Vec<&'a Transaction>>,
    refunds: HashMap<&'a str, i64>,
    messages: HashMap<&'a str, Vec<&'a Message>>,
}

impl<'a> Index<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let mut index =
            Index { charges: HashMap::new(), orders: HashMap::new(), refunds: HashMap::new(), messages: HashMap::new() };
        for transaction in &snapshot.transactions {
            match (&*transaction.kind, &transaction.charge_key) {
                ("charge", _) => {
                    index.charges.entry(&transaction.key).or_default().push(transaction);
                    index.orders.entry(uid_of(&transaction.key)).or_default().push(transaction);
                }
                ("refund", Some(charge)) if transaction.outcome == "done" => {
                    *index.refunds.entry(charge).or_default() += transaction.amount.minor()
                }
                _ => {}
            }
        }
        for message in &snapshot.messages {
            index.messages.entry(&message.key).or_default().push(message);
        }
        index
    }

    /// Returns all attempts to charge the order with this UID.
    fn charges_of(&self, uid: &str) -> impl Iterator<Item = &'a Transaction> {
        self.orders.get(uid).into_iter().flatten().copied()
    }

    fn refunded(&self, key: &str) -> Money {
        Money::from_minor(self.refunds.get(key).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use orders_contracts::{
        billing::{ExportedAccount as Account, ExportedPosting as Posting, Summary},
        notify::LogEntry,
    };
    use orders_crds::{Refusal, order::message_key};

    use super::*;

    fn money(text: &str) -> Money {
        text.parse().unwrap()
    }

    fn transaction(id: i64, kind: &str, key: &str, amount: &str, outcome: &str) -> Transaction {
        let (amount, customer) = (money(amount), "customer:anna".to_owned());
        let change = if kind == "charge" { Money::from_minor(-amount.minor()) } else { amount };
        let against = if kind == "refill" { "cash" } else { "revenue" };
        let postings = vec![
            Posting { account: customer, amount: change },
            Posting { account: against.to_owned(), amount: Money::from_minor(-change.minor()) },
        ];
        Transaction {
            id,
            kind: kind.to_owned(),
            key: key.to_owned(),
            charge_key: None,
            login: "anna".to_owned(),
            amount,
            outcome: outcome.to_owned(),
            postings: if outcome == "done" { postings } else { Vec::new() },
        }
    }

    fn order(uid: &str, amount: &str, outcome: Outcome) -> OrderFacts {
        OrderFacts {
            name: format!("shop/{uid}"),
            uid: uid.to_owned(),
            login: "anna".to_owned(),
            email: "anna@example.com".to_owned(),
            amount: Some(money(amount)),
            outcome,
            notified: true,
            message_key: message_key(uid, outcome),
            cancel_requested: false,
            retry_requested: false,
        }
    }

    fn message(id: i64, key: &str) -> Message {
        let entry = LogEntry {
            id,
            login: "anna".to_owned(),
            email: "anna@example.com".to_owned(),
            dtime: String::new(),
            text: String::new(),
            is_sended: true,
        };
        Message { entry, key: key.to_owned() }
    }

    /// Returns a snapshot with one paid, one refused and one undecided order.
    fn sound() -> Snapshot {
        let waiting = OrderFacts { notified: false, ..order("waiting", "1.00", Outcome::Undecided) };
        let orders = vec![
            order("paid", "100.00", Outcome::Paid),
            order("refused", "1000.00", Outcome::Refused(Refusal::InsufficientFunds)),
            waiting,
        ];
        Snapshot {
            known: orders.iter().map(|order| order.uid.clone()).collect(),
            orders,
            transactions: vec![
                transaction(1, "refill", "r", "900.00", "done"),
                transaction(2, "charge", "paid", "100.00", "done"),
                transaction(3, "charge", "refused", "1000.00", "insufficient_funds"),
                transaction(4, "charge", "waiting", "1.00", "done"),
            ],
            accounts: vec![Account { login: "anna".to_owned(), balance: money("799.00"), posted: money("799.00") }],
            summary: Summary { transactions: 4, postings: 6, sum: Money::ZERO },
            messages: vec![message(1, "paid"), message(2, "refused")],
        }
    }

    fn broken(damage: impl FnOnce(&mut Snapshot)) -> Vec<Rule> {
        let mut snapshot = sound();
        damage(&mut snapshot);
        let mut rules: Vec<Rule> = check(&snapshot).into_iter().map(|violation| violation.rule).collect();
        rules.dedup();
        rules
    }

    #[test]
    fn a_sound_installation_has_no_violation() {
        assert_eq!(check(&sound()), []);
    }

    #[test]
    fn each_rule_finds_what_breaks_it_and_names_the_order() {
        use Rule::*;
        assert_eq!(broken(|s| s.summary.sum = money("0.01")), [PostingsSumToZero]);
        assert_eq!(
            broken(|s| s.transactions[0].postings[0].amount = money("901")),
            [PostingsSumToZero, PostingsMatchTransaction]
        );
        assert_eq!(broken(|s| s.transactions[1].postings.clear()), [PostingsMatchTransaction]);
        assert_eq!(broken(|s| s.transactions[2].postings = s.transactions[1].postings.clone()), [PostingsMatchTransaction]);
        assert_eq!(broken(|s| s.accounts[0].balance = money("800")), [BalanceIsSumOfPostings]);
        assert_eq!(broken(|s| s.accounts[0].balance = money("-1")), [BalanceIsSumOfPostings, NoNegativeBalance]);
        assert_eq!(broken(|s| drop(s.transactions.remove(1))), [PaidOrderHasOneCharge]);
        assert_eq!(broken(|s| s.transactions.push(transaction(9, "charge", "paid", "100.00", "done"))), [PaidOrderHasOneCharge]);
        assert_eq!(broken(|s| s.orders[0].amount = Some(money("99"))), [PaidOrderHasOneCharge]);
        assert_eq!(
            broken(|s| s.transactions[2] = transaction(3, "charge", "refused", "1000.00", "done")),
            [RefusedOrderHasNoCharge]
        );
        assert_eq!(broken(|s| s.transactions.push(transaction(9, "charge", "nobody", "5.00", "done"))), [ChargeHasOrder]);
        assert_eq!(broken(|s| drop(s.messages.remove(0))), [OrderHasOneMessage]);
        assert_eq!(broken(|s| s.messages.push(message(9, "refused"))), [OrderHasOneMessage]);
        assert_eq!(broken(|s| s.messages[1].entry.is_sended = false), [OrderHasOneMessage]);

        let mut snapshot = sound();
        snapshot.transactions.remove(1);
        assert_eq!(check(&snapshot)[0].order.as_deref(), Some("shop/paid"));
    }

    #[test]
    fn what_was_given_back_is_not_outstanding() {
        let refund = |amount: &str| Transaction {
            charge_key: Some("refused".to_owned()),
            ..transaction(9, "refund", "f", amount, "done")
        };
        let charge = || transaction(3, "charge", "refused", "1000.00", "done");
        assert_eq!(
            broken(|s| {
                s.transactions[2] = charge();
                s.transactions.push(refund("1000.00"))
            }),
            []
        );
        assert_eq!(
            broken(|s| {
                s.transactions[2] = charge();
                s.transactions.push(refund("999.99"))
            }),
            [Rule::RefusedOrderHasNoCharge]
        );
        assert_eq!(
            broken(|s| {
                s.transactions[2] = charge();
                s.transactions.push(refund("1000.01"))
            }),
            [Rule::RefundWithinCharge]
        );
    }
}
