//! Every reachable state of an order, explored: whatever answers come, get lost
//! or never come, and wherever the operator crashes, the promises hold, and from
//! everywhere there is a way to the end.
//!
//! The parts outside are modelled by what they promise: billing and notify do a
//! thing once for its key and remember what they did.

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry};

use jiff::Timestamp;
use orders_crds::{Money, OrderSpec, OrderStatus, Outcome, Reason, texts};
use orders_operator::{
    clients::{Delivery, NoAnswer, Payment},
    decide::{Step, decide},
    purchase::Purchase,
    status::Progress,
};

/// What billing has recorded under the order's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ledger {
    Nothing,
    Charged,
    Refused(&'static str),
}

/// What notify has of the order's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mail {
    Nothing,
    Stored,
    Sent,
    Refused,
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
    ledger: Ledger,
    mail: Mail,
}

/// What makes two worlds the same: times and counts left out.
type Shape = (Vec<(String, String, String)>, bool, bool, Option<String>, Ledger, Mail);

fn shape(world: &World) -> Shape {
    let status = &world.status;
    let conditions = status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect();
    let retry = status.retry.as_ref().map(|retry| format!("{:?}", retry.step));
    (conditions, status.charge.is_some(), status.balance.is_some(), retry, world.ledger, world.mail)
}

fn purchase() -> Purchase {
    let spec = OrderSpec { id: None, login: "anna".into(), email: "anna@example.com".into(), cart_id: 0, amount: "10".into() };
    Purchase::read("uid", &spec).expect("a good order")
}

/// The answers that billing may give to a call, with what it has recorded then.
fn charge(ledger: Ledger, call: Call) -> Vec<(Ledger, Result<Payment, NoAnswer>)> {
    let no_answer = || Err(NoAnswer("no answer".into()));
    let decided = match ledger {
        // What it will be, billing alone knows.
        Ledger::Nothing => vec![
            Ledger::Charged,
            Ledger::Refused("InsufficientFunds"),
            Ledger::Refused("AccountNotFound"),
            Ledger::Refused("Cancelled"),
        ],
        recorded => vec![recorded],
    };
    let answer = |ledger| match ledger {
        Ledger::Charged => Payment::Charged { balance: Money::ZERO },
        Ledger::Refused(reason) => {
            Payment::Refused { reason: Reason::parse(reason).expect("a reason"), balance: Some(Money::ZERO) }
        }
        Ledger::Nothing => unreachable!("it was decided"),
    };
    match call {
        Call::Answered => decided.into_iter().map(|ledger| (ledger, Ok(answer(ledger)))).collect(),
        Call::AnswerLost => decided.into_iter().map(|ledger| (ledger, no_answer())).collect(),
        Call::Lost | Call::Garbage => vec![(ledger, no_answer())],
    }
}

/// The same for notify.
fn tell(mail: Mail, call: Call) -> Vec<(Mail, Result<Delivery, NoAnswer>)> {
    let no_answer = || Err(NoAnswer("no answer".into()));
    let becomes = match mail {
        Mail::Nothing => vec![Mail::Stored, Mail::Sent, Mail::Refused],
        Mail::Stored => vec![Mail::Stored, Mail::Sent],
        done => vec![done],
    };
    let answer = |mail| match mail {
        Mail::Sent => Delivery::Sent,
        Mail::Stored => Delivery::Underway { last_error: None },
        Mail::Refused => Delivery::Refused { why: "no such address".into() },
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
    let (mut results, mut under_way) = (Vec::new(), vec![(world.clone(), world.status.clone())]);
    while let Some((reached, in_the_making)) = under_way.pop() {
        // A crash here.
        results.push(World { status: world.status.clone(), ..reached.clone() });
        let purchase = purchase();
        match decide(&in_the_making, now) {
            Step::Charge => {
                for (ledger, answer) in CALLS.into_iter().flat_map(|call| charge(reached.ledger, call)) {
                    let mut progress = Progress::new(in_the_making.clone(), Some(1));
                    progress.paid(&purchase, answer, now);
                    under_way.push((World { ledger, ..reached.clone() }, progress.status));
                }
            }
            Step::Notify => {
                let (outcome, balance) = (in_the_making.outcome(), in_the_making.balance);
                assert!(texts::for_outcome(outcome, &purchase.login, purchase.amount, balance).is_some());
                for (mail, answer) in CALLS.into_iter().flat_map(|call| tell(reached.mail, call)) {
                    let mut progress = Progress::new(in_the_making.clone(), Some(1));
                    progress.notified(&purchase, answer, now);
                    under_way.push((World { mail, ..reached.clone() }, progress.status));
                }
            }
            // The status is written, last.
            Step::Wait(_) | Step::Done => results.push(World { status: in_the_making, ..reached }),
        }
    }
    results
}

fn assert_promises(world: &World) {
    let status = &world.status;
    match status.outcome() {
        Outcome::Paid => {
            assert_eq!(world.ledger, Ledger::Charged, "paid, so it is charged: {world:?}");
            assert!(status.charge.is_some() && status.balance.is_some(), "{world:?}");
        }
        Outcome::Refused(reason) => {
            let reason = reason.expect("a known reason").as_str();
            assert_eq!(world.ledger, Ledger::Refused(reason), "refused, so it is not and never will be charged: {world:?}");
            assert!(status.charge.is_none(), "{world:?}");
        }
        // Unknown is neither.
        Outcome::Undecided => {}
    }
    assert!(world.mail == Mail::Nothing || world.ledger != Ledger::Nothing, "nobody is told before it is decided: {world:?}");
    if status.is_notified() {
        assert_eq!(world.mail, Mail::Sent, "{world:?}");
    }
}

#[test]
fn the_promises_hold_in_every_reachable_state_and_each_has_a_way_to_the_end() {
    let start = World { status: OrderStatus::default(), ledger: Ledger::Nothing, mail: Mail::Nothing };
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
    let ended = |world: &World| decide(&world.status, clock) == Step::Done;
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

    // What is decided stays decided.
    for (from, successors) in &edges {
        let decided = seen[from].status.outcome();
        if decided != Outcome::Undecided {
            for to in successors {
                assert_eq!(seen[to].status.outcome(), decided, "{from:?} -> {to:?}");
            }
        }
    }
    println!("{} states, {} transitions", seen.len(), edges.values().map(BTreeSet::len).sum::<usize>());
}
