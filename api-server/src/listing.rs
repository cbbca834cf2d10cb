//! An index of the live orders, newest first. It finds orders by cursor, login and state in a
//! number of steps that does not depend on the number of orders.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use kube::ResourceExt;
use orders_crds::{ConditionType, Login, Order, Reason, conditions};
use serde::Deserialize;

/// The longest UID that a cursor may name, in characters.
const MAX_UID: usize = 253;

/// The position of an order, live or archived, in the list. The next page starts after it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Cursor {
    /// When the order was created, in microseconds since 1970-01-01 UTC.
    pub created_at: i64,
    /// The UID of the order.
    pub uid: String,
}

/// Selects the orders of a list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only orders of this login.
    pub login: Option<Login>,
    /// Only orders with this reason.
    pub state: Option<String>,
    /// Only orders created at this time or later.
    pub from: Option<Timestamp>,
    /// Only orders created before this time.
    pub to: Option<Timestamp>,
}

/// The names of the live orders by cursor. There is a list of all orders, one for each login, one
/// for each state, and one for each login in each state.
#[derive(Debug, Default)]
pub struct Index {
    lists: HashMap<Key, BTreeSet<ByCursor>>,
    by_name: HashMap<Arc<str>, Arc<Live>>,
}

/// The key of a list: the login and the state of its orders. `None` stands for any.
type Key = (Option<Arc<str>>, Option<Arc<str>>);

/// The indexed fields of a live order, shared by the lists that contain it.
#[derive(Debug)]
struct Live {
    cursor: Cursor,
    name: Arc<str>,
    login: Arc<str>,
    state: Arc<str>,
}

/// An order in a list, sorted by its cursor.
#[derive(Clone, Debug)]
struct ByCursor(Arc<Live>);

impl Cursor {
    /// Returns the cursor of an order.
    pub fn of(order: &Order) -> Self {
        let created = order.creation_timestamp().map_or(0, |time| time.0.as_microsecond());
        Cursor { created_at: created, uid: order.uid().unwrap_or_default() }
    }

    /// Encodes the cursor for clients.
    pub fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{} {}", self.created_at, self.uid))
    }
}

impl TryFrom<String> for Cursor {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let decode = || {
            let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(&text).ok()?).ok()?;
            let (created, uid) = text.split_once(' ')?;
            let created_at = created.parse().ok()?;
            let well_formed =
                (1..=MAX_UID).contains(&uid.len()) && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            (well_formed && Timestamp::from_microsecond(created_at).is_ok()).then(|| Cursor { created_at, uid: uid.to_owned() })
        };
        decode().ok_or("must be the next_cursor of the previous page")
    }
}

impl Filter {
    /// Whether an order passes the filter.
    pub fn passes(&self, order: &Order) -> bool {
        let created = order.creation_timestamp().map(|time| time.0);
        self.login.as_ref().is_none_or(|login| order.spec.login == login.as_ref())
            && self.state.as_ref().is_none_or(|state| *state == reason(order))
            && self.from.is_none_or(|from| created.is_some_and(|created| created >= from))
            && self.to.is_none_or(|to| created.is_some_and(|created| created < to))
    }
}

/// The reason of the order's outcome, or `Pending` if there is none yet.
pub fn reason(order: &Order) -> String {
    let conditions = order.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
    let succeeded = conditions::find(conditions, ConditionType::Succeeded);
    succeeded.map_or(Reason::Pending.as_str(), |condition| &condition.reason).to_owned()
}

impl Live {
    /// The keys of the lists that contain the order.
    fn list_keys(&self) -> [Key; 4] {
        let (login, state) = (|| Some(self.login.clone()), || Some(self.state.clone()));
        [(None, None), (login(), None), (None, state()), (login(), state())]
    }
}

impl Index {
    /// Adds an order, or replaces the order with the same name.
    pub fn insert(&mut self, order: &Order) {
        let (name, cursor, state) = (order.name_any(), Cursor::of(order), reason(order));
        if let Some(known) = self.by_name.get(&*name) {
            if known.cursor == cursor && *known.login == order.spec.login && *known.state == state {
                return;
            }
            self.remove(&name);
        }
        let login = self.shared_key((Some(order.spec.login.as_str().into()), None)).0;
        let state = self.shared_key((None, Some(state.into()))).1;
        let (Some(login), Some(state)) = (login, state) else { return };
        let live = Arc::new(Live { cursor, name: name.into(), login, state });
        for list in live.list_keys() {
            self.lists.entry(list).or_default().insert(ByCursor(live.clone()));
        }
        self.by_name.insert(live.name.clone(), live);
    }

    /// Returns the equal key of an indexed order, if there is one, so that orders share their
    /// texts.
    fn shared_key(&self, key: Key) -> Key {
        self.lists.get_key_value(&key).map(|(known, _)| known.clone()).unwrap_or(key)
    }

    /// Removes the order with this name.
    pub fn remove(&mut self, name: &str) {
        let Some(live) = self.by_name.remove(name) else { return };
        for key in live.list_keys() {
            if let Some(list) = self.lists.get_mut(&key) {
                list.remove(&live.cursor);
                if list.is_empty() {
                    self.lists.remove(&key);
                }
            }
        }
    }

    /// Whether this order is live.
    pub fn contains(&self, cursor: &Cursor) -> bool {
        self.lists.get(&(None, None)).is_some_and(|all| all.contains(cursor))
    }

    /// Returns the names of the orders that pass the filter, after this cursor, newest first. The
    /// index reads no other order.
    pub fn after<'a>(&'a self, cursor: Option<&Cursor>, filter: &Filter) -> impl Iterator<Item = &'a str> + use<'a> {
        // No text is smaller than the empty one, so all orders of that time are newer than this
        // cursor.
        let at = |time: Timestamp| Cursor { created_at: microseconds(time), uid: String::new() };
        let oldest = filter.from.map(at);
        let newest = match (cursor.cloned(), filter.to.map(at)) {
            (Some(cursor), Some(to)) => Some(cursor.min(to)),
            (cursor, to) => cursor.or(to),
        };
        let key = (filter.login.as_ref().map(|login| login.as_ref().into()), filter.state.as_deref().map(Arc::from));
        // A range that ends before it begins is empty.
        let is_range = oldest.as_ref().zip(newest.as_ref()).is_none_or(|(oldest, newest)| oldest < newest);
        let list = self.lists.get(&key).filter(|_| is_range);
        let range = (oldest.map_or(Unbounded, Included), newest.map_or(Unbounded, Excluded));
        list.into_iter().flat_map(move |list| list.range::<Cursor, _>(range.clone()).rev()).map(|live| &*live.0.name)
    }
}

/// The first whole microsecond that is not before this time. Orders are created at whole
/// microseconds.
pub(crate) fn microseconds(time: Timestamp) -> i64 {
    let whole = time.as_microsecond();
    if time.as_nanosecond() > i128::from(whole) * 1000 { whole + 1 } else { whole }
}

impl Borrow<Cursor> for ByCursor {
    fn borrow(&self) -> &Cursor {
        &self.0.cursor
    }
}

impl Ord for ByCursor {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cursor.cmp(&other.0.cursor)
    }
}

impl PartialOrd for ByCursor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByCursor {
    fn eq(&self, other: &Self) -> bool {
        self.0.cursor == other.0.cursor
    }
}

impl Eq for ByCursor {}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use orders_crds::OrderSpec;

    use super::*;

    fn order(name: &str, login: &str, second: i64) -> Order {
        let mut order = Order::new(name, OrderSpec { login: login.to_owned(), ..OrderSpec::default() });
        order.metadata.uid = Some(format!("uid-{name}"));
        order.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
        order
    }

    fn decided(mut order: Order, reason: Reason) -> Order {
        let at = Timestamp::from_second(0).unwrap();
        let status = order.status.get_or_insert_default();
        conditions::set(&mut status.conditions, ConditionType::Succeeded, Some(false), reason, String::new(), None, at);
        order
    }

    fn login(login: &str) -> Option<Login> {
        Some(Login::try_from(login.to_owned()).unwrap())
    }

    fn state(reason: Reason) -> Option<String> {
        Some(reason.as_str().to_owned())
    }

    fn second(second: i64) -> Option<Timestamp> {
        Some(Timestamp::from_second(second).unwrap())
    }

    fn names<'a>(index: &'a Index, cursor: Option<&Cursor>, filter: &Filter) -> Vec<&'a str> {
        index.after(cursor, filter).collect()
    }

    #[test]
    fn orders_are_found_newest_first_from_any_cursor_and_by_login() {
        let mut index = Index::default();
        for (name, login, second) in [("b", "anna", 2), ("a", "anna", 1), ("c", "bert", 2), ("d", "anna", 3)] {
            index.insert(&order(name, login, second));
        }
        let (all, anna) = (Filter::default(), Filter { login: login("anna"), ..Filter::default() });
        assert_eq!(names(&index, None, &all), ["d", "c", "b", "a"]);
        let cursor = Cursor::of(&order("c", "bert", 2));
        assert_eq!(names(&index, Some(&cursor), &all), ["b", "a"]);
        assert_eq!(names(&index, Some(&cursor), &anna), ["b", "a"]);
        assert!(index.contains(&cursor) && !index.contains(&Cursor { created_at: cursor.created_at, uid: "uid-b2".into() }));
        index.remove("b");
        index.insert(&order("a", "anna", 4));
        assert_eq!(names(&index, None, &anna), ["a", "d"], "created again under its name");
        assert_eq!(index.by_name.len(), 3);
    }

    #[test]
    fn an_order_whose_state_changes_is_found_under_the_new_state_only() {
        let mut index = Index::default();
        let by_state = |reason| Filter { state: state(reason), ..Filter::default() };
        let of_anna = |reason| Filter { login: login("anna"), ..by_state(reason) };
        index.insert(&order("a", "anna", 1));
        index.insert(&order("b", "bert", 2));
        assert_eq!(names(&index, None, &by_state(Reason::Pending)), ["b", "a"]);
        for reason in [Reason::Paid, Reason::Refunded] {
            index.insert(&decided(order("a", "anna", 1), reason));
            assert_eq!(names(&index, None, &by_state(reason)), ["a"]);
            assert_eq!(names(&index, None, &of_anna(reason)), ["a"]);
        }
        assert_eq!(names(&index, None, &by_state(Reason::Pending)), ["b"]);
        for empty in [of_anna(Reason::Pending), by_state(Reason::Paid), of_anna(Reason::Paid)] {
            assert_eq!(index.after(None, &empty).count(), 0, "{empty:?}");
        }
        assert_eq!(names(&index, None, &Filter::default()), ["b", "a"], "once");
        index.remove("a");
        index.remove("b");
        assert!(index.lists.is_empty() && index.by_name.is_empty(), "{index:?}");
    }

    #[test]
    fn the_index_returns_only_orders_that_pass_the_filter() {
        let mut index = Index::default();
        for number in 0..10_000 {
            let rare = number % 4000 == 1000;
            let order = order(&format!("order-{number}"), ["anna", "bert"][usize::from(rare)], number);
            index.insert(&decided(order, if rare { Reason::DeadlineExceeded } else { Reason::Paid }));
        }
        let late = state(Reason::DeadlineExceeded);
        let rare = ["order-9000", "order-5000", "order-1000"];
        for filter in [
            Filter { state: late.clone(), ..Filter::default() },
            Filter { login: login("bert"), state: late.clone(), ..Filter::default() },
            Filter { login: login("bert"), ..Filter::default() },
        ] {
            assert_eq!(names(&index, None, &filter), rare, "{filter:?}");
            let last = Cursor::of(&order("order-5000", "bert", 5000));
            assert_eq!(names(&index, Some(&last), &filter), rare[2..], "{filter:?}");
        }
        let none = Filter { login: login("anna"), state: late.clone(), ..Filter::default() };
        assert_eq!(index.after(None, &none).count(), 0);
        let times = Filter { from: second(4998), to: second(5001), ..Filter::default() };
        assert_eq!(names(&index, None, &times), ["order-5000", "order-4999", "order-4998"]);
        let both = Filter { state: late, ..times.clone() };
        assert_eq!(names(&index, None, &both), ["order-5000"]);
        let cursor = Cursor::of(&order("order-4999", "anna", 4999));
        assert_eq!(names(&index, Some(&cursor), &times), ["order-4998"]);
        let newer = Cursor::of(&order("order-6000", "anna", 6000));
        assert_eq!(index.after(Some(&newer), &times).count(), 3);
        let older = Cursor::of(&order("order-10", "anna", 10));
        assert_eq!(index.after(Some(&older), &times).count(), 0);
    }

    #[test]
    fn a_range_of_times_contains_the_orders_that_pass_the_filter() {
        let mut index = Index::default();
        let orders: Vec<Order> = (0..6).map(|number| order(&format!("o{number}"), "anna", number / 2)).collect();
        orders.iter().for_each(|order| index.insert(order));
        let times: Vec<Option<Timestamp>> =
            (0..6).map(|half: i64| Timestamp::from_nanosecond(i128::from(half) * 500_000_001).ok()).chain([None]).collect();
        for from in &times {
            for to in &times {
                let filter = Filter { from: *from, to: *to, ..Filter::default() };
                let mut passed: Vec<String> =
                    orders.iter().filter(|order| filter.passes(order)).map(|order| order.name_any()).collect();
                passed.reverse();
                assert_eq!(names(&index, None, &filter), passed, "{filter:?}");
            }
        }
    }

    #[test]
    fn a_cursor_decodes_to_itself_and_an_invalid_one_is_refused() {
        let cursor = Cursor { created_at: 5, uid: "b5f0-1".into() };
        assert_eq!(Cursor::try_from(cursor.encode()), Ok(cursor));
        let encoded = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        for text in ["".into(), "AAAA".into(), "%%%".into(), encoded("order"), encoded("9223372036854775807 u"), encoded("5 a,b")]
        {
            assert!(Cursor::try_from(text.clone()).is_err(), "{text}");
        }
    }
}
