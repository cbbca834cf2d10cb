//! The rules that must hold, and a pure function that checks them over a snapshot.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use orders_contracts::{billing::ExportedTransaction as Transaction, notify::ExportedMessage as Message};
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
    /// A charge that is not fully refunded belongs to an order. An authorized charge may be without an
    /// order for [`MAX_UNSETTLED`], until it is captured or voided.
    ChargeHasOrder,
    /// Each capture and each void is of a charge of the same amount, and no charge has more than one
    /// of them.
    ChargeIsSettledOnce,
    /// The charge of a paid order that is only in the archive is captured, within
    /// [`MAX_UNSETTLED`].
    ArchivedChargeIsCaptured,
    /// The refunds of a charge never exceed its amount.
    RefundWithinCharge,
    /// An order whose message was sent has exactly one message in the log.
    OrderHasOneMessage,
}

impl Rule {
    /// Returns the rule as a line of the report.
    pub const fn description(self) -> &'static str {
        match self {
            Rule::PostingsSumToZero => "all postings sum to zero",
            Rule::PostingsMatchTransaction => "each transaction has the postings of its amount",
            Rule::BalanceIsSumOfPostings => "every balance is the sum of its postings",
            Rule::NoNegativeBalance => "no balance is negative",
            Rule::PaidOrderHasOneCharge => "each paid order has exactly one charge of its amount",
            Rule::RefusedOrderHasNoCharge => "each charge of a refused order is fully refunded",
            Rule::ChargeHasOrder => "each charge belongs to an order",
            Rule::ChargeIsSettledOnce => "each authorized charge is captured or voided, once",
            Rule::ArchivedChargeIsCaptured => "each charge of an archived order is captured",
            Rule::RefundWithinCharge => "no charge is refunded beyond its amount",
            Rule::OrderHasOneMessage => "each notified order has exactly one message",
        }
    }
}

/// How long a charge may be authorized after its order is archived or gone. The operator settles such
/// a charge within two minutes, unless a service is unavailable.
pub const MAX_UNSETTLED: SignedDuration = SignedDuration::from_mins(10);

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
    let index = Index::of(snapshot);
    let mut violations = Vec::new();
    let mut report = |rule, order: Option<&OrderFacts>, detail: String| {
        violations.push(Violation { rule, order: order.map(|order| order.name.clone()), detail });
    };

    if snapshot.summary.sum != Money::ZERO {
        report(Rule::PostingsSumToZero, None, format!("the ledger's postings sum to {}", snapshot.summary.sum));
    }
    for transaction in &snapshot.transactions {
        check_postings(transaction, &mut report);
    }
    for account in &snapshot.accounts {
        if account.balance != account.posted {
            let detail =
                format!("account {}: the balance is {}, its postings sum to {}", account.login, account.balance, account.posted);
            report(Rule::BalanceIsSumOfPostings, None, detail);
        }
        if account.balance < Money::ZERO {
            report(Rule::NoNegativeBalance, None, format!("account {}: the balance is {}", account.login, account.balance));
        }
    }
    for order in &snapshot.orders {
        check_order(order, &index, &mut report);
        let authorized = index.charges_of_order(&order.uid).find(|charge| index.is_authorized(charge));
        if let Some(charge) = authorized.filter(|charge| is_overdue(charge, snapshot))
            && order.is_archived
            && order.outcome == Outcome::Paid
        {
            let detail = format!("charge {} of {}: {} is not captured", charge.key, charge.login, charge.amount);
            report(Rule::ArchivedChargeIsCaptured, Some(order), detail);
        }
    }
    for (key, settlements) in &index.settlements_by_charge {
        check_settlements(key, settlements, &index, &mut report);
    }
    for (key, charges) in &index.charges_by_key {
        for charge in charges.iter().filter(|charge| charge.outcome == "done") {
            let refunded = index.refunded(key);
            if refunded > charge.amount {
                report(
                    Rule::RefundWithinCharge,
                    None,
                    format!("charge {key} of {}: the amount is {}, but {refunded} was refunded", charge.login, charge.amount),
                );
            }
            let is_being_settled = index.is_authorized(charge) && !is_overdue(charge, snapshot);
            if !snapshot.all_uids.contains(uid_of(key)) && refunded < charge.amount && !is_being_settled {
                report(
                    Rule::ChargeHasOrder,
                    None,
                    format!(
                        "charge {key} of {}: {} was charged, but there is no order with this UID",
                        charge.login, charge.amount
                    ),
                );
            }
        }
    }
    violations
}

/// Whether the charge should have been captured or voided before the audit began to read.
fn is_overdue(charge: &Transaction, snapshot: &Snapshot) -> bool {
    Timestamp::from_microsecond(charge.created_at).is_ok_and(|created| created + MAX_UNSETTLED < snapshot.time)
}

/// Checks the captures and voids of the charge with this key.
fn check_settlements(
    key: &str,
    settlements: &[&Transaction],
    index: &Index<'_>,
    report: &mut impl FnMut(Rule, Option<&OrderFacts>, String),
) {
    let charges = index.charges_by_key.get(key).map(Vec::as_slice).unwrap_or_default();
    let is_settled_once = match (charges, settlements) {
        ([charge], [settlement]) => charge.outcome == "done" && charge.amount == settlement.amount,
        _ => false,
    };
    if !is_settled_once {
        let kinds: Vec<&str> = settlements.iter().map(|settlement| &*settlement.kind).collect();
        let detail = format!("charge {key}: {} charges, settled by {}", charges.len(), kinds.join(" and "));
        report(Rule::ChargeIsSettledOnce, None, detail);
    }
}

fn check_postings(transaction: &Transaction, report: &mut impl FnMut(Rule, Option<&OrderFacts>, String)) {
    let sum: i64 = transaction.postings.iter().map(|posting| posting.amount.minor()).sum();
    let label = || format!("transaction {} ({} {} of {})", transaction.id, transaction.kind, transaction.key, transaction.login);
    if sum != 0 {
        report(Rule::PostingsSumToZero, None, format!("{}: its postings sum to {}", label(), Money::from_minor(sum)));
    }
    let customer = format!("customer:{}", transaction.login);
    let change = match &*transaction.kind {
        "charge" => -transaction.amount.minor(),
        "capture" => 0,
        _ => transaction.amount.minor(),
    };
    let of_customer: i64 =
        transaction.postings.iter().filter(|posting| posting.account == customer).map(|posting| posting.amount.minor()).sum();
    let expected = if transaction.outcome == "done" { (2, change) } else { (0, 0) };
    if (transaction.postings.len(), of_customer) != expected {
        let detail = format!(
            "{}: the outcome is {}, the amount is {}, but {} postings change the account by {}",
            label(),
            transaction.outcome,
            transaction.amount,
            transaction.postings.len(),
            Money::from_minor(of_customer)
        );
        report(Rule::PostingsMatchTransaction, None, detail);
    }
}

fn check_order(order: &OrderFacts, index: &Index<'_>, report: &mut impl FnMut(Rule, Option<&OrderFacts>, String)) {
    // Fully refunded charges do not count: a paid order may have been cancelled since the audit
    // read it.
    let charges = index.charges_of_order(&order.uid).filter(|charge| charge.outcome == "done");
    let (fully_refunded, others): (Vec<&Transaction>, Vec<&Transaction>) =
        charges.partition(|charge| index.refunded(&charge.key) >= charge.amount);
    match order.outcome {
        // Billing may have a charge or none: the status of the order does not show it.
        Outcome::Undecided | Outcome::Unknown => return,
        Outcome::Paid => match &*others {
            [charge] if Some(charge.amount) == order.amount && charge.login == order.login => {}
            [charge] => report(
                Rule::PaidOrderHasOneCharge,
                Some(order),
                format!(
                    "UID {}: {} was charged to {}, but the amount of the order is {} and its login is {}",
                    order.uid,
                    charge.amount,
                    charge.login,
                    order.amount.map_or_else(|| "invalid".to_owned(), |amount| amount.to_string()),
                    order.login
                ),
            ),
            [] if order.cancel_requested && fully_refunded.len() == 1 => {}
            charges => report(Rule::PaidOrderHasOneCharge, Some(order), format!("UID {}: {} charges", order.uid, charges.len())),
        },
        Outcome::Refused(refusal) => {
            let unrefunded: i64 = others.iter().map(|charge| charge.amount.minor() - index.refunded(&charge.key).minor()).sum();
            // After a requested retry, the order may have been charged again since the audit read
            // it.
            if unrefunded > 0 && !order.retry_requested {
                let reason = refusal.reason();
                report(
                    Rule::RefusedOrderHasNoCharge,
                    Some(order),
                    format!("UID {}: refused because {reason}, but {} is not refunded", order.uid, Money::from_minor(unrefunded)),
                );
            }
        }
    }
    if order.is_notified {
        match index.messages_by_key.get(&*order.message_key).map(Vec::as_slice).unwrap_or_default() {
            [message] if was_sent_to(message, order) => {}
            [message] => report(
                Rule::OrderHasOneMessage,
                Some(order),
                format!(
                    "UID {}: message {} to {} <{}>, sent: {}",
                    order.uid, message.entry.id, message.entry.login, message.entry.email, message.entry.is_sended
                ),
            ),
            messages => report(Rule::OrderHasOneMessage, Some(order), format!("UID {}: {} messages", order.uid, messages.len())),
        }
    }
}

fn was_sent_to(message: &Message, order: &OrderFacts) -> bool {
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
    charges_by_key: HashMap<&'a str, Vec<&'a Transaction>>,
    charges_by_order: HashMap<&'a str, Vec<&'a Transaction>>,
    refunded_by_charge: HashMap<&'a str, i64>,
    settlements_by_charge: HashMap<&'a str, Vec<&'a Transaction>>,
    messages_by_key: HashMap<&'a str, Vec<&'a Message>>,
}

impl<'a> Index<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let mut index = Index {
            charges_by_key: HashMap::new(),
            charges_by_order: HashMap::new(),
            refunded_by_charge: HashMap::new(),
            settlements_by_charge: HashMap::new(),
            messages_by_key: HashMap::new(),
        };
        for transaction in &snapshot.transactions {
            match (&*transaction.kind, &transaction.charge_key) {
                ("charge", _) => {
                    index.charges_by_key.entry(&transaction.key).or_default().push(transaction);
                    index.charges_by_order.entry(uid_of(&transaction.key)).or_default().push(transaction);
                }
                ("refund" | "void", Some(charge)) if transaction.outcome == "done" => {
                    *index.refunded_by_charge.entry(charge).or_default() += transaction.amount.minor()
                }
                _ => {}
            }
            if let ("capture" | "void", Some(charge)) = (&*transaction.kind, &transaction.charge_key) {
                index.settlements_by_charge.entry(charge).or_default().push(transaction);
            }
        }
        for message in &snapshot.messages {
            index.messages_by_key.entry(&message.key).or_default().push(message);
        }
        index
    }

    /// Returns all attempts to charge the order with this UID.
    fn charges_of_order(&self, uid: &str) -> impl Iterator<Item = &'a Transaction> {
        self.charges_by_order.get(uid).into_iter().flatten().copied()
    }

    /// Whether the charge is neither captured nor voided. A charge whose money went to `revenue` was
    /// captured when it was made.
    fn is_authorized(&self, charge: &Transaction) -> bool {
        let is_authorization = charge.postings.iter().any(|posting| posting.account == "authorized");
        is_authorization && !self.settlements_by_charge.contains_key(&*charge.key)
    }

    fn refunded(&self, key: &str) -> Money {
        Money::from_minor(self.refunded_by_charge.get(key).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use orders_contracts::{
        billing::{ExportedAccount as Account, ExportedPosting as Posting, Summary},
        notify::LogEntry,
    };
    use orders_crds::{Refusal, order::message_key};
    use strum::IntoEnumIterator;

    use super::*;

    fn money(text: &str) -> Money {
        text.parse().unwrap()
    }

    fn transaction(id: i64, kind: &str, key: &str, amount: &str, outcome: &str) -> Transaction {
        let (amount, customer) = (money(amount), "customer:anna".to_owned());
        let (from, to) = match kind {
            "refill" => ("cash", &*customer),
            "charge" => (&*customer, "authorized"),
            "capture" => ("authorized", "revenue"),
            "void" => ("authorized", &*customer),
            _ => ("revenue", &*customer),
        };
        let postings = vec![
            Posting { account: from.to_owned(), amount: Money::from_minor(-amount.minor()) },
            Posting { account: to.to_owned(), amount },
        ];
        Transaction {
            id,
            kind: kind.to_owned(),
            key: key.to_owned(),
            charge_key: None,
            login: "anna".to_owned(),
            amount,
            outcome: outcome.to_owned(),
            created_at: 0,
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
            is_notified: true,
            message_key: message_key(uid, outcome),
            cancel_requested: false,
            retry_requested: false,
            is_archived: false,
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
    fn consistent_snapshot() -> Snapshot {
        let undecided = OrderFacts { is_notified: false, ..order("undecided", "1.00", Outcome::Undecided) };
        let orders = vec![
            order("paid", "100.00", Outcome::Paid),
            order("refused", "1000.00", Outcome::Refused(Refusal::InsufficientFunds)),
            undecided,
        ];
        Snapshot {
            time: Timestamp::UNIX_EPOCH + MAX_UNSETTLED,
            all_uids: orders.iter().map(|order| order.uid.clone()).collect(),
            orders,
            transactions: vec![
                transaction(1, "refill", "r", "900.00", "done"),
                transaction(2, "charge", "paid", "100.00", "done"),
                transaction(3, "charge", "refused", "1000.00", "insufficient_funds"),
                transaction(4, "charge", "undecided", "1.00", "done"),
                settlement("capture", "paid", "100.00"),
            ],
            accounts: vec![Account { login: "anna".to_owned(), balance: money("799.00"), posted: money("799.00") }],
            summary: Summary { transactions: 4, postings: 6, sum: Money::ZERO },
            messages: vec![message(1, "paid"), message(2, "refused")],
        }
    }

    fn settlement(kind: &str, charge_key: &str, amount: &str) -> Transaction {
        Transaction { charge_key: Some(charge_key.to_owned()), ..transaction(8, kind, charge_key, amount, "done") }
    }

    fn violated_rules(damage: impl FnOnce(&mut Snapshot)) -> Vec<Rule> {
        let mut snapshot = consistent_snapshot();
        damage(&mut snapshot);
        let mut rules: Vec<Rule> = check(&snapshot).into_iter().map(|violation| violation.rule).collect();
        rules.dedup();
        rules
    }

    #[test]
    fn a_consistent_installation_has_no_violation() {
        assert_eq!(check(&consistent_snapshot()), []);
    }

    #[test]
    fn each_rule_detects_its_violation_and_names_the_order() {
        use Rule::*;
        assert_eq!(violated_rules(|s| s.summary.sum = money("0.01")), [PostingsSumToZero]);
        assert_eq!(
            violated_rules(|s| s.transactions[0].postings[1].amount = money("901")),
            [PostingsSumToZero, PostingsMatchTransaction]
        );
        assert_eq!(violated_rules(|s| s.transactions[1].postings.clear()), [PostingsMatchTransaction]);
        assert_eq!(
            violated_rules(|s| s.transactions[2].postings = s.transactions[1].postings.clone()),
            [PostingsMatchTransaction]
        );
        assert_eq!(violated_rules(|s| s.accounts[0].balance = money("800")), [BalanceIsSumOfPostings]);
        assert_eq!(violated_rules(|s| s.accounts[0].balance = money("-1")), [BalanceIsSumOfPostings, NoNegativeBalance]);
        assert_eq!(violated_rules(|s| drop(s.transactions.remove(1))), [PaidOrderHasOneCharge, ChargeIsSettledOnce]);
        assert_eq!(
            violated_rules(|s| s.transactions.push(transaction(9, "charge", "paid", "100.00", "done"))),
            [PaidOrderHasOneCharge, ChargeIsSettledOnce]
        );
        assert_eq!(violated_rules(|s| s.orders[0].amount = Some(money("99"))), [PaidOrderHasOneCharge]);
        assert_eq!(
            violated_rules(|s| s.transactions[2] = transaction(3, "charge", "refused", "1000.00", "done")),
            [RefusedOrderHasNoCharge]
        );
        assert_eq!(violated_rules(|s| s.transactions.push(captured("nobody", "5.00"))), [ChargeHasOrder]);
        assert_eq!(violated_rules(|s| drop(s.messages.remove(0))), [OrderHasOneMessage]);
        assert_eq!(violated_rules(|s| s.messages.push(message(9, "refused"))), [OrderHasOneMessage]);
        assert_eq!(violated_rules(|s| s.messages[1].entry.is_sended = false), [OrderHasOneMessage]);

        let mut snapshot = consistent_snapshot();
        snapshot.transactions.remove(1);
        assert_eq!(check(&snapshot)[0].order.as_deref(), Some("shop/paid"));
    }

    /// A charge that was captured at once.
    fn captured(key: &str, amount: &str) -> Transaction {
        let mut charge = transaction(9, "charge", key, amount, "done");
        charge.postings[1].account = "revenue".to_owned();
        charge
    }

    #[test]
    fn a_charge_without_an_order_counts_once_it_is_captured_or_overdue() {
        let charge = || transaction(9, "charge", "nobody", "5.00", "done");
        assert_eq!(violated_rules(|s| s.transactions.push(charge())), []);
        let overdue = violated_rules(|s| {
            s.transactions.push(charge());
            s.time += SignedDuration::from_micros(1);
        });
        assert_eq!(overdue, [Rule::ChargeHasOrder]);
        let capture = settlement("capture", "nobody", "5.00");
        assert_eq!(violated_rules(|s| s.transactions.extend([charge(), capture])), [Rule::ChargeHasOrder]);
        let void = settlement("void", "nobody", "5.00");
        let voided = violated_rules(|s| {
            s.transactions.extend([charge(), void]);
            s.time += SignedDuration::from_hours(1);
        });
        assert_eq!(voided, []);
    }

    #[test]
    fn a_charge_is_captured_or_voided_once_and_as_a_whole() {
        for settlement in [
            settlement("void", "paid", "100.00"),
            settlement("capture", "paid", "100.00"),
            settlement("capture", "undecided", "0.99"),
            settlement("capture", "refused", "1000.00"),
            settlement("capture", "unknown", "1.00"),
        ] {
            let is_void = settlement.kind == "void";
            let rules = violated_rules(|s| s.transactions.push(settlement.clone()));
            assert!(rules.contains(&Rule::ChargeIsSettledOnce), "{settlement:?}");
            assert_eq!(rules.contains(&Rule::PaidOrderHasOneCharge), is_void, "{settlement:?}");
        }
    }

    #[test]
    fn the_charge_of_an_archived_paid_order_is_captured_in_time() {
        let archived = |outcome, is_archived, micros| {
            violated_rules(|s| {
                s.transactions.pop();
                s.orders[0] = OrderFacts { outcome, is_archived, is_notified: false, ..s.orders[0].clone() };
                s.orders.truncate(1);
                s.time += SignedDuration::from_micros(micros);
            })
        };
        assert_eq!(archived(Outcome::Paid, true, 1), [Rule::ArchivedChargeIsCaptured]);
        assert_eq!(archived(Outcome::Paid, true, 0), []);
        assert_eq!(archived(Outcome::Paid, false, 1), []);
        assert_eq!(archived(Outcome::Undecided, true, 1), []);
    }

    fn refund(charge_key: &str, amount: &str, outcome: &str) -> Transaction {
        Transaction { charge_key: Some(charge_key.to_owned()), ..transaction(9, "refund", "f", amount, outcome) }
    }

    #[test]
    fn each_rule_has_a_line_of_its_own_in_the_report() {
        let lines: HashSet<&str> = Rule::iter().map(Rule::description).collect();
        assert_eq!(lines.len(), Rule::iter().count());
    }

    #[test]
    fn an_account_may_be_empty() {
        let damage = |s: &mut Snapshot| {
            (s.accounts[0].balance, s.accounts[0].posted) = (Money::ZERO, Money::ZERO);
        };
        assert_eq!(violated_rules(damage), []);
    }

    #[test]
    fn a_paid_order_may_be_refunded_only_if_its_cancellation_was_requested() {
        let refunded = |cancel_requested: bool| {
            violated_rules(|s| {
                s.orders[0].cancel_requested = cancel_requested;
                s.transactions.push(refund("paid", "100.00", "done"));
            })
        };
        assert_eq!(refunded(true), []);
        assert_eq!(refunded(false), [Rule::PaidOrderHasOneCharge]);
        let uncharged = violated_rules(|s| {
            s.orders[0].cancel_requested = true;
            s.transactions.remove(1);
            s.transactions.pop();
        });
        assert_eq!(uncharged, [Rule::PaidOrderHasOneCharge], "a refund needs a charge");
    }

    #[test]
    fn a_charge_without_an_order_counts_until_it_is_fully_refunded() {
        let charge = || captured("nobody", "5.00");
        assert_eq!(violated_rules(|s| s.transactions.extend([charge(), refund("nobody", "5.00", "done")])), []);
        assert_eq!(
            violated_rules(|s| s.transactions.extend([charge(), refund("nobody", "4.99", "done")])),
            [Rule::ChargeHasOrder]
        );
        assert_eq!(
            violated_rules(|s| s.transactions.extend([charge(), refund("nobody", "5.00", "balance_limit")])),
            [Rule::ChargeHasOrder],
            "a refund that was refused returns nothing"
        );
    }

    #[test]
    fn the_report_of_a_partial_refund_states_what_is_left() {
        let mut snapshot = consistent_snapshot();
        snapshot.transactions[2] = transaction(3, "charge", "refused", "1000.00", "done");
        snapshot.transactions.push(refund("refused", "999.00", "done"));
        let detail = &check(&snapshot)[0].detail;
        assert!(detail.ends_with("1.00 is not refunded"), "{detail}");
    }

    #[test]
    fn a_fully_refunded_charge_does_not_count() {
        let refund = |amount: &str| refund("refused", amount, "done");
        let charge = || transaction(3, "charge", "refused", "1000.00", "done");
        assert_eq!(
            violated_rules(|s| {
                s.transactions[2] = charge();
                s.transactions.push(refund("1000.00"))
            }),
            []
        );
        assert_eq!(
            violated_rules(|s| {
                s.transactions[2] = charge();
                s.transactions.push(refund("999.99"))
            }),
            [Rule::RefusedOrderHasNoCharge]
        );
        assert_eq!(
            violated_rules(|s| {
                s.transactions[2] = charge();
                s.transactions.push(refund("1000.01"))
            }),
            [Rule::RefundWithinCharge]
        );
    }
}
