//! The client of the public API.

use form_urlencoded::Serializer;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    access::{Access, AccessError, Answer},
    arguments::ListArgs,
    order::Order,
};

/// The maximum number of orders on a page.
const MAX_PAGE: usize = 100;

/// The reason why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There was no response.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The API, or Kubernetes, refused the call.
    #[error("{0}")]
    Refused(String),
    /// The response is not an order.
    #[error("the answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// An action that can be requested for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Cancel the order.
    Cancel,
    /// Charge the order again.
    Retry,
    /// Send the order's message again.
    Resend,
}

impl Wish {
    /// The end of the path of the action.
    const fn path(self) -> &'static str {
        match self {
            Wish::Cancel => "cancel",
            Wish::Retry => "retry",
            Wish::Resend => "notifications/resend",
        }
    }
}

/// The result of a requested action.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The current state of the order.
    pub order: Order,
    /// Whether the action is complete. If not, it continues.
    pub done: bool,
}

/// The result of a list call.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The orders, newest first.
    pub orders: Vec<Order>,
    /// Whether there are more orders than were requested.
    pub more: bool,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// The public API.
pub struct Api {
    access: Access,
}

impl Api {
    /// Creates a client that reaches the API through this access.
    pub fn new(access: Access) -> Self {
        Api { access }
    }

    /// Returns an order.
    ///
    /// # Errors
    /// [`ApiError`], also if there is no such order.
    pub async fn get(&self, id: i64) -> Result<Order, ApiError> {
        let answer = self.send(Method::GET, &format!("/orders/{id}")).await?;
        Ok(Order::read(&answer.text)?)
    }

    /// Lists orders, page by page.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn list(&self, wanted: &ListArgs) -> Result<Listed, ApiError> {
        let (mut orders, mut cursor) = (Vec::new(), None);
        loop {
            let answer = self.send(Method::GET, &list_path(wanted, wanted.limit.get() - orders.len(), cursor.as_deref())).await?;
            let page: Page = serde_json::from_str(&answer.text)?;
            for item in page.items {
                orders.push(Order::read(item.get())?);
            }
            cursor = page.next_cursor;
            if cursor.is_none() || orders.len() >= wanted.limit.get() {
                return Ok(Listed { orders, more: cursor.is_some() });
            }
        }
    }

    /// Requests an action for an order.
    ///
    /// # Errors
    /// [`ApiError`], also if the order's state forbids the action.
    pub async fn ask(&self, id: i64, wish: Wish) -> Result<Granted, ApiError> {
        let answer = self.send(Method::POST, &format!("/orders/{id}/{}", wish.path())).await?;
        Ok(Granted { order: Order::read(&answer.text)?, done: answer.status != StatusCode::ACCEPTED })
    }

    async fn send(&self, method: Method, path: &str) -> Result<Answer, ApiError> {
        let answer = self.access.send(method, path).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(ApiError::Refused(refusal(&answer))) }
    }
}

fn list_path(wanted: &ListArgs, left: usize, cursor: Option<&str>) -> String {
    let limit = left.min(MAX_PAGE).to_string();
    let (from, to) = (wanted.from.map(|time| time.to_string()), wanted.to.map(|time| time.to_string()));
    let pairs = [
        ("login", wanted.login.as_deref()),
        ("state", wanted.state.as_deref()),
        ("from", from.as_deref()),
        ("to", to.as_deref()),
        ("limit", Some(&*limit)),
        ("cursor", cursor),
    ];
    let pairs = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
    format!("/orders?{}", Serializer::new(String::new()).extend_pairs(pairs).finish())
}

/// The reason why a request was refused: the `detail` of the API's problem, or the message of
/// Kubernetes if the request did not reach the API.
fn refusal(answer: &Answer) -> String {
    let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
    if let Some(detail) = body["detail"].as_str() {
        return detail.to_owned();
    }
    match (body["kind"].as_str(), body["message"].as_str()) {
        (Some("Status"), Some(message)) => format!("Kubernetes does not pass the request on: {message}"),
        _ => {
            let text: String = answer.text.chars().take(200).collect();
            format!("{}: {}", answer.status, text.trim())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{ApiCommand, Arguments, Command};

    fn path_of(line: &str, left: usize, cursor: Option<&str>) -> String {
        match Arguments::parse_from(line.split(' ')).command {
            Command::Api(ApiCommand::List(wanted)) => list_path(&wanted, left, cursor),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_page_is_asked_for_with_every_filter_and_as_large_as_is_left_and_allowed() {
        assert_eq!(path_of("orders list", 500, None), "/orders?limit=100");
        assert_eq!(
            path_of(
                "orders list --login a@b&c --state Paid --from 2026-01-31T01:00:00+01:00 --to 2026-02-01T00:00:00Z",
                7,
                Some("x=")
            ),
            "/orders?login=a%40b%26c&state=Paid&from=2026-01-31T00%3A00%3A00Z&to=2026-02-01T00%3A00%3A00Z&limit=7&cursor=x%3D"
        );
    }

    #[test]
    fn a_refusal_says_what_whoever_refused_it_says() {
        let refused = |status, text: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            refusal(&Answer { status, text: text.to_owned() })
        };
        assert_eq!(refused(404, r#"{"title":"Not Found","detail":"there is no order 4711"}"#), "there is no order 4711");
        assert_eq!(
            refused(503, r#"{"kind":"Status","message":"no endpoints available"}"#),
            "Kubernetes does not pass the request on: no endpoints available"
        );
        assert_eq!(refused(502, "<html>\n"), "502 Bad Gateway: <html>");
    }
}
