//! The filters and the cursor that select a page of the listing. The listing is sorted newest
//! first.

use std::fmt;

use orders_crds::Login;
use serde::Deserialize;

use crate::entry::is_valid_column_value;

/// The number of orders on a page if the caller sets no limit.
pub const DEFAULT_LIMIT: u16 = 20;

/// The maximum number of orders on a page.
pub const MAX_LIMIT: u16 = 100;

/// The filters, the limit and the cursor of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Only orders of this namespace.
    pub namespace: String,
    /// Only orders of this login.
    pub login: Option<Login>,
    /// Only orders whose condition `Succeeded` has this reason.
    pub state: Option<String>,
    /// Only orders created at this time or later, in microseconds since 1970-01-01 UTC.
    pub from: Option<i64>,
    /// Only orders created before this time, in microseconds since 1970-01-01 UTC.
    pub to: Option<i64>,
    /// The maximum number of orders on the page.
    pub limit: u16,
    /// Only orders that come after this cursor.
    pub before: Option<Cursor>,
}

/// The position of an order in the listing, written as `MICROSECONDS,UID`. The newest order has the
/// largest cursor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Cursor {
    /// When the order was created, in microseconds since 1970-01-01 UTC.
    pub created_at: i64,
    /// The order's UID, which distinguishes orders with the same creation time.
    pub uid: String,
}

impl Listing {
    /// Returns the first page of the listing of all orders in a namespace.
    pub fn of(namespace: &str) -> Self {
        let namespace = namespace.to_owned();
        Listing { namespace, login: None, state: None, from: None, to: None, limit: DEFAULT_LIMIT, before: None }
    }

    /// Returns the earliest creation time in the listing, inclusive.
    pub fn oldest(&self) -> i64 {
        self.from.unwrap_or(i64::MIN)
    }

    /// Returns the cursor that precedes all orders on the page. It is the stricter of the two
    /// requested bounds, `before` and `to`. A database seeks to one bound only. With two bounds, it
    /// would read all rows between them.
    pub fn start(&self) -> Cursor {
        // No text is smaller than the empty text, so all orders of that time precede this cursor in
        // the listing.
        let at = |created_at| Cursor { created_at, uid: String::new() };
        let to = at(self.to.unwrap_or(i64::MAX));
        self.before.clone().map_or(to.clone(), |before| before.min(to))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.created_at, self.uid)
    }
}

impl TryFrom<String> for Cursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parse = || {
            let (created_at, uid) = text.split_once(',')?;
            is_valid_column_value(uid).then_some(Cursor { created_at: created_at.parse().ok()?, uid: uid.to_owned() })
        };
        parse().ok_or("must be `next` of the previous page")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(created_at: i64, uid: &str) -> Cursor {
        Cursor { created_at, uid: uid.to_owned() }
    }

    #[test]
    fn a_cursor_can_be_parsed_and_any_other_text_cannot() {
        let original = cursor(1_737_957_687_000_000, "b5f0c1d2-0000-4000-8000-000000000001");
        assert_eq!(Cursor::try_from(original.to_string()), Ok(original));
        for text in ["", ",", "5", "5,", ",a", "five,a", "5,a\0", "5 ,a", "9223372036854775808,a"] {
            assert!(Cursor::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_page_starts_at_the_stricter_of_its_two_bounds() {
        let start = |before: Option<Cursor>, to| Listing { before, to, ..Listing::of("shop") }.start();
        assert_eq!(start(None, None), cursor(i64::MAX, ""));
        assert_eq!(start(None, Some(7)), cursor(7, ""));
        assert_eq!(start(Some(cursor(5, "b")), None), cursor(5, "b"));
        assert_eq!(start(Some(cursor(5, "b")), Some(7)), cursor(5, "b"));
        assert_eq!(start(Some(cursor(7, "b")), Some(7)), cursor(7, ""));
    }
}
