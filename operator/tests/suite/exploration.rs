//! Explores every reachable state of an order. In each state, a call to billing or notify succeeds,
//! fails or loses its reply, the user cancels the order or requests a retry or a resend, the deadline
//! passes, or the operator crashes. The invariants must hold in each state, and each state must be
//! able to reach a final one.
//!
//! Billing and notify are models of what they guarantee: they execute a request once for its key,
//! and record its result.

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry};

use jiff::Timestamp;
use orders_contracts::texts;
use orders_crds::{Money, OrderSpec, OrderStatus, Outcome, Refusal, order::message_key};
use orders_operator::{
    order::{
        decide::{Step, decide},
        intent::Intent,
        status::StatusBuilder,
    },
    ports::{Delivery, Payment, Purchase, UnknownResult},
};

/// The record of billing under the key of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Charge {
    Missing,
    Charged,
    Refunded,
    Refused(Refusal),
}

/// The record of notify under the key of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    Missing,
    Stored,
    Sent,
    Undeliverable,
    DeadLettered,
}

/// The result of a call.
#[derive(Clone, Copy, Debug)]
enum Call {
    /// It takes effect, and the reply arrives.
    Replied,
    /// It takes effect, and the reply is lost.
    ReplyLost,
    /// The request is lost.
    RequestLost,
    /// It takes no effect, and the reply is not definite: a 5xx, a truncated body, another order's
    /// reply.
    InvalidReply,
}

const CALLS: [Call; 4] = [Call::Replied, Call::ReplyLost, Call::RequestLost, Call::InvalidReply];

/// Everything that survives a crash of the operator.
#[derive(Clone, Debug)]
struct State {
    status: OrderStatus,
    /// The requests of the user. Each may be made at any time, and is not withdrawn.
    intent: Intent,
    /// The charges under the keys of the first and of the second attempt.
    charges: [Charge; 2],
    /// The messages by key.
    messages: BTreeMap<String, Message>,
}

/// Identifies a state: everything except times, counts and texts.
type StateKey = (
    Vec<(String, String, String)>,
    (bool, bool, bool, i32, i32, Option<String>),
    (bool, bool, i32, i32),
    [Charge; 2],
    BTreeMap<String, Message>,
);

fn state_key(state: &State) -> StateKey {
    let status = &state.status;
    let conditions = status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect();
    let retry = status.retry.as_ref().map(|retry| format!("{:?}", retry.step));
    let intent = &state.intent;
    (
        conditions,
        (
            status.charge.is_some(),
            status.balance.is_some(),
            status.refunded.is_some(),
            status.attempt(),
            status.resends.unwrap_or(0),
            retry,
        ),
        (intent.cancel, intent.deadline.is_some(), intent.attempt, intent.resends),
        state.charges,
        state.messages.clone(),
    )
}

fn purchase(attempt: i32) -> Purchase {
    let spec = OrderSpec {
        login: "anna".into(),
        email: "anna@example.com".into(),
        cart_id: 0,
        amount: "10".into(),
        ..OrderSpec::default()
    };
    Purchase::read("uid", attempt, &spec).expect("a valid order")
}

fn unknown<T>() -> Result<T, UnknownResult> {
    Err(UnknownResult("no reply".into()))
}

/// The possible results of a request to charge, each with the charge that billing then has.
fn charge(recorded: Charge, call: Call) -> Vec<(Charge, Result<Payment, UnknownResult>)> {
    let decided = match recorded {
        // Only billing knows the balance, so each result is possible.
        Charge::Missing => {
            vec![Charge::Charged, Charge::Refused(Refusal::InsufficientFunds), Charge::Refused(Refusal::AccountNotFound)]
        }
        Charge::Charged | Charge::Refunded | Charge::Refused(_) => vec![recorded],
    };
    payments(decided, call, recorded)
}

/// The possible results of a request to close the charge.
fn close(recorded: Charge, call: Call) -> Vec<(Charge, Result<Payment, UnknownResult>)> {
    let decided = match recorded {
        Charge::Missing => Charge::Refused(Refusal::Cancelled),
        Charge::Charged | Charge::Refunded | Charge::Refused(_) => recorded,
    };
    payments(vec![decided], call, recorded)
}

fn payments(decided: Vec<Charge>, call: Call, recorded: Charge) -> Vec<(Charge, Result<Payment, UnknownResult>)> {
    let payment = |charge| match charge {
        // The outcome of the charge does not change with its refund.
        Charge::Charged | Charge::Refunded => Payment::Charged { balance: Money::ZERO },
        Charge::Refused(refusal) => Payment::Refused { refusal, balance: Some(Money::ZERO) },
        Charge::Missing => unreachable!("the charge is decided"),
    };
    match call {
        Call::Replied => decided.into_iter().map(|charge| (charge, Ok(payment(charge)))).collect(),
        Call::ReplyLost => decided.into_iter().map(|charge| (charge, unknown())).collect(),
        Call::RequestLost | Call::InvalidReply => vec![(recorded, unknown())],
    }
}

/// The possible results of a request to refund the charge.
fn refund(recorded: Charge, call: Call) -> (Charge, Result<Money, UnknownResult>) {
    assert!(matches!(recorded, Charge::Charged | Charge::Refunded), "only a charge is refunded: {recorded:?}");
    match call {
        Call::Replied => (Charge::Refunded, Ok(Money::ZERO)),
        Call::ReplyLost => (Charge::Refunded, unknown()),
        Call::RequestLost | Call::InvalidReply => (recorded, unknown()),
    }
}

/// The possible results of a request to notify the customer, each with the message that notify then
/// has. `is_resend`: the request is to resend a message whose delivery was stopped.
fn notify(recorded: Message, is_resend: bool, call: Call) -> Vec<(Message, Result<Delivery, UnknownResult>)> {
    let messages = match recorded {
        Message::Missing => vec![Message::Stored, Message::Sent, Message::Undeliverable, Message::DeadLettered],
        Message::Stored => vec![Message::Stored, Message::Sent, Message::DeadLettered],
        Message::DeadLettered if is_resend => vec![Message::Stored, Message::Sent],
        Message::Sent | Message::Undeliverable | Message::DeadLettered => vec![recorded],
    };
    let delivery = |message| match message {
        Message::Sent => Delivery::Sent,
        Message::Stored => Delivery::Delivering { last_error: None },
        Message::Undeliverable => Delivery::Undeliverable { error: "no such address".into() },
        Message::DeadLettered => Delivery::DeadLettered { error: "no such host".into() },
        Message::Missing => unreachable!("the message is stored"),
    };
    match call {
        Call::Replied => messages.into_iter().map(|message| (message, Ok(delivery(message)))).collect(),
        Call::ReplyLost => messages.into_iter().map(|message| (message, unknown())).collect(),
        Call::RequestLost | Call::InvalidReply => vec![(recorded, unknown())],
    }
}

/// Every state that can follow. A pass writes the status at its end. A crash during the pass loses
/// the new status, and keeps what billing and notify have recorded.
fn successors(state: &State, now: Timestamp) -> Vec<State> {
    let (mut successors, mut in_progress) = (user_requests(state), vec![(state.clone(), state.status.clone())]);
    while let Some((reached, status)) = in_progress.pop() {
        // The operator may crash here.
        successors.push(State { status: state.status.clone(), ..reached.clone() });
        let attempt = status.attempt();
        let (purchase, index) = (purchase(attempt), (attempt - 1) as usize);
        let recorded = reached.charges[index];
        let with_charge = |charge| {
            let mut charges = reached.charges;
            charges[index] = charge;
            State { charges, ..reached.clone() }
        };
        let builder = || StatusBuilder::new(status.clone(), Some(1));
        match decide(&status, &state.intent, now) {
            Step::LookUp => unreachable!("the orders of the exploration have free names"),
            Step::Charge => {
                for (charge, result) in CALLS.into_iter().flat_map(|call| charge(recorded, call)) {
                    let mut builder = builder();
                    builder.record_charge(&purchase, result, now);
                    in_progress.push((with_charge(charge), builder.status));
                }
            }
            Step::Close => {
                for (charge, result) in CALLS.into_iter().flat_map(|call| close(recorded, call)) {
                    let mut builder = builder();
                    builder.record_close(&purchase, result, state.intent.cancel, now);
                    in_progress.push((with_charge(charge), builder.status));
                }
            }
            Step::Refund => {
                for (charge, result) in CALLS.map(|call| refund(recorded, call)) {
                    let mut builder = builder();
                    builder.record_refund(&purchase, result, now);
                    in_progress.push((with_charge(charge), builder.status));
                }
            }
            Step::Notify => {
                let (outcome, balance) = (status.outcome(), status.balance);
                assert!(texts::for_outcome(outcome, &purchase.login, purchase.amount, balance).is_some());
                let key = message_key(&purchase.key, outcome);
                let recorded = reached.messages.get(&key).copied().unwrap_or(Message::Missing);
                let is_resend = status.resends.unwrap_or(0) > 0;
                for (message, result) in CALLS.into_iter().flat_map(|call| notify(recorded, is_resend, call)) {
                    let mut builder = builder();
                    builder.record_delivery(&purchase, result, now);
                    let mut reached = reached.clone();
                    reached.messages.insert(key.clone(), message);
                    in_progress.push((reached, builder.status));
                }
            }
            Step::Retry => {
                let mut builder = builder();
                builder.begin_attempt(state.intent.attempt, now);
                in_progress.push((reached, builder.status));
            }
            Step::Resend => {
                let mut builder = builder();
                builder.begin_resend(state.intent.resends, now);
                in_progress.push((reached, builder.status));
            }
            // The pass writes the status.
            Step::Wait(_) | Step::Done => successors.push(State { status, ..reached }),
        }
    }
    successors
}

/// The states after each request that the user may make.
fn user_requests(state: &State) -> Vec<State> {
    let intent = state.intent;
    [
        Intent { cancel: true, ..intent },
        Intent { deadline: Some(Timestamp::UNIX_EPOCH), ..intent },
        Intent { attempt: 2, ..intent },
        Intent { resends: 1, ..intent },
    ]
    .map(|intent| State { intent, ..state.clone() })
    .into()
}

fn assert_invariants(state: &State) {
    let (status, charge) = (&state.status, state.charges[(state.status.attempt() - 1) as usize]);
    match status.outcome() {
        Outcome::Paid => {
            // Refunded: billing made the refund, and its reply was lost.
            let is_charged = charge == Charge::Charged || (charge == Charge::Refunded && state.intent.cancel);
            assert!(is_charged, "a paid order is charged: {state:?}");
            assert!(status.charge.is_some() && status.balance.is_some(), "{state:?}");
        }
        Outcome::Refused(Refusal::Refunded) => {
            assert_eq!(charge, Charge::Refunded, "{state:?}");
            assert!(status.refunded.is_some() && state.intent.cancel, "{state:?}");
        }
        Outcome::Refused(refusal) => {
            let recorded = if refusal == Refusal::DeadlineExceeded { Refusal::Cancelled } else { refusal };
            assert_eq!(charge, Charge::Refused(recorded), "a refused order is not and never will be charged: {state:?}");
            assert!(status.charge.is_none() && status.refunded.is_none(), "{state:?}");
        }
        // The charge is unknown: it may have been made or not.
        Outcome::Undecided => {}
        Outcome::Unknown => panic!("this version writes no outcome that it does not know: {state:?}"),
    }
    let charged = state.charges.iter().filter(|charge| **charge == Charge::Charged).count();
    assert!(charged <= 1, "charged at most once over all attempts: {state:?}");
    assert!(
        state.messages.is_empty() || state.charges[0] != Charge::Missing,
        "no customer is notified before the order is decided: {state:?}"
    );
    if status.is_notified() {
        let key = message_key(&purchase(status.attempt()).key, status.outcome());
        assert_eq!(state.messages.get(&key), Some(&Message::Sent), "{state:?}");
    }
}

#[test]
fn the_invariants_hold_in_every_reachable_state_and_each_state_can_reach_a_final_one() {
    let start = State {
        status: OrderStatus::default(),
        intent: Intent::default(),
        charges: [Charge::Missing; 2],
        messages: BTreeMap::new(),
    };
    let (mut states, mut transitions) = (BTreeMap::new(), BTreeMap::<StateKey, BTreeSet<StateKey>>::new());
    let mut queue = VecDeque::from([start.clone()]);
    states.insert(state_key(&start), start);
    // Each pass begins after the backoff of the one before.
    let mut clock = Timestamp::from_second(1_000_000).expect("a time");
    while let Some(state) = queue.pop_front() {
        clock += std::time::Duration::from_secs(3600);
        for next in successors(&state, clock) {
            assert_invariants(&next);
            transitions.entry(state_key(&state)).or_default().insert(state_key(&next));
            if let Entry::Vacant(entry) = states.entry(state_key(&next)) {
                entry.insert(next.clone());
                queue.push_back(next);
            }
        }
    }
    assert!(states.len() > 30, "the exploration reached only {} states", states.len());

    // Backwards from the final states: each state can reach one.
    let is_final = |state: &State| decide(&state.status, &state.intent, clock) == Step::Done;
    let mut can_finish: BTreeSet<StateKey> =
        states.iter().filter(|(_, state)| is_final(state)).map(|(key, _)| key.clone()).collect();
    loop {
        let more: Vec<StateKey> = transitions
            .iter()
            .filter(|(from, to)| !can_finish.contains(*from) && to.iter().any(|key| can_finish.contains(key)))
            .map(|(from, _)| from.clone())
            .collect();
        if more.is_empty() {
            break;
        }
        can_finish.extend(more);
    }
    let stuck: Vec<_> = states.keys().filter(|key| !can_finish.contains(*key)).collect();
    assert!(stuck.is_empty(), "states that can reach no final one: {stuck:?}");

    // A decided outcome changes only on request.
    for (from, successors) in &transitions {
        let before = states[from].status.outcome();
        for to in successors {
            let (after, intent) = (states[to].status.outcome(), states[from].intent);
            let is_allowed = match before {
                Outcome::Undecided => true,
                Outcome::Unknown => false,
                Outcome::Paid => after == Outcome::Refused(Refusal::Refunded) && intent.cancel,
                Outcome::Refused(Refusal::InsufficientFunds | Refusal::AccountNotFound) => intent.attempt == 2,
                Outcome::Refused(
                    Refusal::Cancelled
                    | Refusal::DeadlineExceeded
                    | Refusal::Refunded
                    | Refusal::AlreadyExists
                    | Refusal::InvalidOrder,
                ) => false,
            };
            assert!(after == before || is_allowed, "{from:?} -> {to:?}");
        }
    }
    println!("{} states, {} transitions", states.len(), transitions.values().map(BTreeSet::len).sum::<usize>());
}
