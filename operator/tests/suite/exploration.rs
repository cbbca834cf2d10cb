//! Every reachable state of an order, explored: whatever answers come, get lost
//! or never come, whenever it is cancelled, too late, tried again or sent again, and
//! wherever the operator crashes, the promises hold, and from everywhere there is a
//! way to the end.
//!
//! The parts outside are modelled by what they promise: billing and notify do a
//! thing once for its key and remember what they did.

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
    ports::{Delivery, NoAnswer, Payment, Purchase},
};

/// What billing has recorded under the order's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ledger {
    Nothing,
    Charged,
    Refunded,
    Refused(Refusal),
}

/// What notify has of the order's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mail {
    Nothing,
    Stored,
    Sent,
    Refused,
    Dead,
}

/// How one call goes.
#[derive(Clone, Copy, Debug)]
enum Call {
    /// It takes effect and is answered.
    Answered,
    /// It takes effect, and the answer is lost.
    AnswerLost,
    /// It never arrives.
    Lost,
    /// It is answered by something that is no answer: a 5xx, half a body, another order's.
    Garbage,
}

/// The world as it would be found after a crash.
#[derive(Clone, Debug)]
struct World {
    status: OrderStatus,
    /// What people want; each wish comes at any time and stays.
    intent: Intent,
    /// Under the keys of the first and of the second attempt.
    ledger: [Ledger; 2],
    /// Each message by its key.
    mail: BTreeMap<String, Mail>,
}

/// What makes two worlds the same: times and counts left out.
type Shape = (
    Vec<(String, String, String)>,
    (bool, bool, bool, i32, i32, Option<String>),
    (bool, bool, i32, i32),
    [Ledger; 2],
    BTreeMap<String, Mail>,
);

fn shape(world: &World) -> Shape {
    let status = &world.status;
    let conditions = status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect();
    let retry = status.retry.as_ref().map(|retry| format!("{:?}", retry.step));
    let intent = &world.intent;
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
        world.ledger,
        world.mail.clone(),
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
    Purchase::read("uid", attempt, &spec).expect("a good order")
}

/// The answers that billing may give to a call, with what it has recorded then.
fn charge(ledger: Ledger, call: Call) -> Vec<(Ledger, Result<Payment, NoAnswer>)> {
    let decided = match ledger {
        // What it will be, billing alone knows.
        Ledger::Nothing => {
            vec![Ledger::Charged, Ledger::Refused(Refusal::InsufficientFunds), Ledger::Refused(Refusal::AccountNotFound)]
        }
        recorded => vec![recorded],
    };
    answers(decided, call, ledger)
}

/// The same for closing it.
fn close(ledger: Ledger, call: Call) -> Vec<(Ledger, Result<Payment, NoAnswer>)> {
    let decided = match ledger {
        Ledger::Nothing => vec![Ledger::Refused(Refusal::Cancelled)],
        recorded => vec![recorded],
    };
    answers(decided, call, ledger)
}

fn answers(decided: Vec<Ledger>, call: Call, ledger: Ledger) -> Vec<(Ledger, Result<Payment, NoAnswer>)> {
    let no_answer = || Err(NoAnswer("no answer".into()));
    let answer = |ledger| match ledger {
        // The charge's own outcome stays, also after it was given back.
        Ledger::Charged | Ledger::Refunded => Payment::Charged { balance: Money::ZERO },
        Ledger::Refused(refusal) => Payment::Refused { refusal, balance: Some(Money::ZERO) },
        Ledger::Nothing => unreachable!("it was decided"),
    };
    match call {
        Call::Answered => decided.into_iter().map(|ledger| (ledger, Ok(answer(ledger)))).collect(),
        Call::AnswerLost => decided.into_iter().map(|ledger| (ledger, no_answer())).collect(),
        Call::Lost | Call::Garbage => vec![(ledger, no_answer())],
    }
}

/// The same for giving it back.
fn refund(ledger: Ledger, call: Call) -> Vec<(Ledger, Result<Money, NoAnswer>)> {
    let no_answer = || Err(NoAnswer("no answer".into()));
    assert!(matches!(ledger, Ledger::Charged | Ledger::Refunded), "only what was charged is given back: {ledger:?}");
    match call {
        Call::Answered => vec![(Ledger::Refunded, Ok(Money::ZERO))],
        Call::AnswerLost => vec![(Ledger::Refunded, no_answer())],
        Call::Lost | Call::Garbage => vec![(ledger, no_answer())],
    }
}

/// The same for notify. `again`: it is asked to send what it gave up.
fn tell(mail: Mail, again: bool, call: Call) -> Vec<(Mail, Result<Delivery, NoAnswer>)> {
    let no_answer = || Err(NoAnswer("no answer".into()));
    let becomes = match mail {
        Mail::Nothing => vec![Mail::Stored, Mail::Sent, Mail::Refused, Mail::Dead],
        Mail::Stored => vec![Mail::Stored, Mail::Sent, Mail::Dead],
        Mail::Dead if again => vec![Mail::Stored, Mail::Sent],
        done => vec![done],
    };
    let answer = |mail| match mail {
        Mail::Sent => Delivery::Sent,
        Mail::Stored => Delivery::Underway { last_error: None },
        Mail::Refused => Delivery::Refused { why: "no such address".into() },
        Mail::Dead => Delivery::DeadLettered { why: "no such host".into() },
        Mail::Nothing => unreachable!("it was stored"),
    };
    match call {
        Call::Answered => becomes.into_iter().map(|mail| (mail, Ok(answer(mail)))).collect(),
        Call::AnswerLost => becomes.into_iter().map(|mail| (mail, no_answer())).collect(),
        Call::Lost | Call::Garbage => vec![(mail, no_answer())],
    }
}

const CALLS: [Call; 4] = [Call::Answered, Call::AnswerLost, Call::Lost, Call::Garbage];

/// Every world in which one pass over the order can leave it: a crash after any
/// step loses the status that was in the making, and keeps what the others did.
fn successors(world: &World, now: Timestamp) -> Vec<World> {
    let (mut results, mut under_way) = (wishes(world), vec![(world.clone(), world.status.clone())]);
    while let Some((reached, in_the_making)) = under_way.pop() {
        // A crash here.
        results.push(World { status: world.status.clone(), ..reached.clone() });
        let attempt = in_the_making.attempt();
        let (purchase, which) = (purchase(attempt), (attempt - 1) as usize);
        let recorded = reached.ledger[which];
        let with_ledger = |entry| {
            let mut ledger = reached.ledger;
            ledger[which] = entry;
            World { ledger, ..reached.clone() }
        };
        let mut builder = StatusBuilder::new(in_the_making.clone(), Some(1));
        match decide(&in_the_making, &world.intent, now) {
            Step::Charge => {
                for (entry, answer) in CALLS.into_iter().flat_map(|call| charge(recorded, call)) {
                    let mut builder = StatusBuilder::new(in_the_making.clone(), Some(1));
                    builder.paid(&purchase, answer, now);
                    under_way.push((with_ledger(entry), builder.status));
                }
            }
            Step::Close => {
                for (entry, answer) in CALLS.into_iter().flat_map(|call| close(recorded, call)) {
                    let mut builder = StatusBuilder::new(in_the_making.clone(), Some(1));
                    builder.closed(&purchase, answer, world.intent.cancel, now);
                    under_way.push((with_ledger(entry), builder.status));
                }
            }
            Step::Refund => {
                for (entry, answer) in CALLS.into_iter().flat_map(|call| refund(recorded, call)) {
                    let mut builder = StatusBuilder::new(in_the_making.clone(), Some(1));
                    builder.refunded(&purchase, answer, now);
                    under_way.push((with_ledger(entry), builder.status));
                }
            }
            Step::Notify => {
                let (outcome, balance) = (in_the_making.outcome(), in_the_making.balance);
                assert!(texts::for_outcome(outcome, &purchase.login, purchase.amount, balance).is_some());
                let key = message_key(&purchase.key, outcome);
                let mail = reached.mail.get(&key).copied().unwrap_or(Mail::Nothing);
                let again = in_the_making.resends.unwrap_or(0) > 0;
                for (mail, answer) in CALLS.into_iter().flat_map(|call| tell(mail, again, call)) {
                    let mut builder = StatusBuilder::new(in_the_making.clone(), Some(1));
                    builder.notified(&purchase, answer, now);
                    let mut reached = reached.clone();
                    reached.mail.insert(key.clone(), mail);
                    under_way.push((reached, builder.status));
                }
            }
            Step::Retry => {
                builder.retried(world.intent.attempt, now);
                under_way.push((reached, builder.status));
            }
            Step::Resend => {
                builder.resent(world.intent.resends, now);
                under_way.push((reached, builder.status));
            }
            // The status is written, last.
            Step::Wait(_) | Step::Done => results.push(World { status: in_the_making, ..reached }),
        }
    }
    results
}

/// What people may come to want.
fn wishes(world: &World) -> Vec<World> {
    let intent = world.intent;
    [
        Intent { cancel: true, ..intent },
        Intent { deadline: Some(Timestamp::UNIX_EPOCH), ..intent },
        Intent { attempt: 2, ..intent },
        Intent { resends: 1, ..intent },
    ]
    .map(|intent| World { intent, ..world.clone() })
    .into()
}

fn assert_promises(world: &World) {
    let (status, ledger) = (&world.status, world.ledger[(world.status.attempt() - 1) as usize]);
    match status.outcome() {
        Outcome::Paid => {
            // Refunded: billing did it, and its answer was lost.
            let charged = ledger == Ledger::Charged || (ledger == Ledger::Refunded && world.intent.cancel);
            assert!(charged, "paid, so it is charged: {world:?}");
            assert!(status.charge.is_some() && status.balance.is_some(), "{world:?}");
        }
        Outcome::Refused(Refusal::Refunded) => {
            assert_eq!(ledger, Ledger::Refunded, "{world:?}");
            assert!(status.refunded.is_some() && world.intent.cancel, "{world:?}");
        }
        Outcome::Refused(refusal) => {
            let recorded = if refusal == Refusal::DeadlineExceeded { Refusal::Cancelled } else { refusal };
            assert_eq!(ledger, Ledger::Refused(recorded), "refused, so it is not and never will be charged: {world:?}");
            assert!(status.charge.is_none() && status.refunded.is_none(), "{world:?}");
        }
        // Unknown is neither.
        Outcome::Undecided => {}
        Outcome::Unknown => panic!("this version writes no outcome that it does not know: {world:?}"),
    }
    let money = world.ledger.iter().filter(|ledger| **ledger == Ledger::Charged).count();
    assert!(money <= 1, "charged once in all attempts: {world:?}");
    assert!(world.mail.is_empty() || world.ledger[0] != Ledger::Nothing, "nobody is told before it is decided: {world:?}");
    if status.is_notified() {
        let key = message_key(&purchase(status.attempt()).key, status.outcome());
        assert_eq!(world.mail.get(&key), Some(&Mail::Sent), "{world:?}");
    }
}

#[test]
fn the_promises_hold_in_every_reachable_state_and_each_has_a_way_to_the_end() {
    let start =
        World { status: OrderStatus::default(), intent: Intent::default(), ledger: [Ledger::Nothing; 2], mail: BTreeMap::new() };
    let (mut seen, mut edges) = (BTreeMap::new(), BTreeMap::<Shape, BTreeSet<Shape>>::new());
    let mut queue = VecDeque::from([start.clone()]);
    seen.insert(shape(&start), start);
    // Each pass comes after every pause that the one before may have set.
    let mut clock = Timestamp::from_second(1_000_000).expect("a time");
    while let Some(world) = queue.pop_front() {
        clock += std::time::Duration::from_secs(3600);
        for next in successors(&world, clock) {
            assert_promises(&next);
            edges.entry(shape(&world)).or_default().insert(shape(&next));
            if let Entry::Vacant(unseen) = seen.entry(shape(&next)) {
                unseen.insert(next.clone());
                queue.push_back(next);
            }
        }
    }
    assert!(seen.len() > 30, "the exploration went somewhere: {} states", seen.len());

    // Backwards from the ends: nothing is stuck.
    let ended = |world: &World| decide(&world.status, &world.intent, clock) == Step::Done;
    let mut alive: BTreeSet<Shape> = seen.iter().filter(|(_, world)| ended(world)).map(|(shape, _)| shape.clone()).collect();
    loop {
        let more: Vec<Shape> = edges
            .iter()
            .filter(|(from, to)| !alive.contains(*from) && to.iter().any(|shape| alive.contains(shape)))
            .map(|(from, _)| from.clone())
            .collect();
        if more.is_empty() {
            break;
        }
        alive.extend(more);
    }
    let stuck: Vec<_> = seen.keys().filter(|shape| !alive.contains(*shape)).collect();
    assert!(stuck.is_empty(), "stuck: {stuck:?}");

    // What is decided stays decided, but for what was asked for since.
    for (from, successors) in &edges {
        let decided = seen[from].status.outcome();
        for to in successors {
            let (now, intent) = (seen[to].status.outcome(), seen[from].intent);
            let allowed = match decided {
                Outcome::Undecided => true,
                Outcome::Unknown => false,
                Outcome::Paid => now == Outcome::Refused(Refusal::Refunded) && intent.cancel,
                Outcome::Refused(Refusal::InsufficientFunds | Refusal::AccountNotFound) => intent.attempt == 2,
                Outcome::Refused(_) => false,
            };
            assert!(now == decided || allowed, "{from:?} -> {to:?}");
        }
    }
    println!("{} states, {} transitions", seen.len(), edges.values().map(BTreeSet::len).sum::<usize>());
}
