//! Live orders, newest first, found by place and by login in steps that do not
//! depend on how many there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use kube::ResourceExt;
use orders_crds::{ConditionType, Login, Order, Reason, conditions};

/// The longest UID that a cursor may name, in characters.
const MAX_UID: usize = 253;

/// The place of an order in the list, live or archived: everything after it is on the next page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// When it was created, in microseconds since 1970-01-01 UTC.
    pub created_at: i64,
    /// Its UID.
    pub uid: String,
}

/// Which orders are looked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those of this login.
    pub login: Option<Login>,
    /// Only those with this reason.
    pub state: Option<String>,
    /// Only those created then or later.
    pub from: Option<Timestamp>,
    /// Only those created earlier.
    pub to: Option<Timestamp>,
}

/// The live orders' names by place.
#[derive(Debug, Default)]
pub struct Index {
    names: BTreeMap<Place, String>,
    of_login: HashMap<String, BTreeSet<Place>>,
    by_name: HashMap<String, (Place, String)>,
}

impl Place {
    /// That of an order.
    pub fn of(order: &Order) -> Self {
        let created = order.creation_timestamp().map_or(0, |time| time.0.as_microsecond());
        Place { created_at: created, uid: order.uid().unwrap_or_default() }
    }

    /// As clients get it.
    pub fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{} {}", self.created_at, self.uid))
    }
}

impl TryFrom<String> for Place {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let decode = || {
            let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(&text).ok()?).ok()?;
            let (created, uid) = text.split_once(' ')?;
            let created_at = created.parse().ok()?;
            let well_formed =
                (1..=MAX_UID).contains(&uid.len()) && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            (well_formed && Timestamp::from_microsecond(created_at).is_ok()).then(|| Place { created_at, uid: uid.to_owned() })
        };
        decode().ok_or("use next_cursor of the page before")
    }
}

impl Filter {
    /// Whether an order passes.
    pub fn passes(&self, order: &Order) -> bool {
        let created = order.creation_timestamp().map(|time| time.0);
        self.login.as_ref().is_none_or(|login| order.spec.login == login.as_ref())
            && self.state.as_ref().is_none_or(|state| *state == reason(order))
            && self.from.is_none_or(|from| created.is_some_and(|created| created >= from))
            && self.to.is_none_or(|to| created.is_some_and(|created| created < to))
    }
}

/// The reason of the order's outcome, or that it is being worked on.
pub fn reason(order: &Order) -> String {
    let conditions = order.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
    let succeeded = conditions::find(conditions, ConditionType::Succeeded);
    succeeded.map_or(Reason::Processing.as_str(), |condition| &condition.reason).to_owned()
}

impl Index {
    /// Takes in an order, as new or instead of an earlier one of its name.
    pub fn insert(&mut self, order: &Order) {
        let (name, place) = (order.name_any(), Place::of(order));
        if self.by_name.get(&name).is_some_and(|(known, _)| *known == place) {
            return;
        }
        self.remove(&name);
        self.names.insert(place.clone(), name.clone());
        self.of_login.entry(order.spec.login.clone()).or_default().insert(place.clone());
        self.by_name.insert(name, (place, order.spec.login.clone()));
    }

    /// Removes the order of this name.
    pub fn remove(&mut self, name: &str) {
        let Some((place, login)) = self.by_name.remove(name) else { return };
        self.names.remove(&place);
        if let Some(places) = self.of_login.get_mut(&login) {
            places.remove(&place);
            if places.is_empty() {
                self.of_login.remove(&login);
            }
        }
    }

    /// Whether this order is live.
    pub fn has(&self, place: &Place) -> bool {
        self.names.contains_key(place)
    }

    /// The names of the orders after this place, newest first, of one login or of all.
    pub fn after<'a>(&'a self, place: Option<&Place>, login: Option<&Login>) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (Unbounded::<Place>, place.map_or(Unbounded, |place| Excluded(place.clone())));
        match login {
            None => Box::new(self.names.range(range).rev().map(|(_, name)| &**name)),
            Some(login) => {
                let places =
                    self.of_login.get(login.as_ref()).into_iter().flat_map(move |places| places.range(range.clone()).rev());
                Box::new(places.filter_map(|place| self.names.get(place)).map(|name| &**name))
            }
        }
    }
}

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

    #[test]
    fn orders_are_found_newest_first_from_any_place_and_by_login() {
        let mut index = Index::default();
        for (name, login, second) in [("b", "anna", 2), ("a", "anna", 1), ("c", "bert", 2), ("d", "anna", 3)] {
            index.insert(&order(name, login, second));
        }
        let anna = Login::try_from("anna".to_owned()).unwrap();
        let all: Vec<_> = index.after(None, None).collect();
        assert_eq!(all, ["d", "c", "b", "a"]);
        let place = Place::of(&order("c", "bert", 2));
        assert_eq!(index.after(Some(&place), None).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(index.after(Some(&place), Some(&anna)).collect::<Vec<_>>(), ["b", "a"]);
        index.remove("b");
        index.insert(&order("a", "anna", 4));
        assert_eq!(index.after(None, Some(&anna)).collect::<Vec<_>>(), ["a", "d"], "made again under its name");
        assert_eq!(index.names.len(), 3);
    }

    #[test]
    fn a_cursor_reads_back_and_a_made_up_one_does_not() {
        let place = Place { created_at: 5, uid: "b5f0-1".into() };
        assert_eq!(Place::try_from(place.encode()), Ok(place));
        let encoded = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        for text in ["".into(), "AAAA".into(), "%%%".into(), encoded("order"), encoded("9223372036854775807 u"), encoded("5 a,b")]
        {
            assert!(Place::try_from(text.clone()).is_err(), "{text}");
        }
    }
}
