//! The client of the public API.

use form_urlencoded::Serializer;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    access::{Access, AccessError, Response},
    arguments::ListArgs,
    order::{Charge, Order},
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
    #[error("the response cannot be parsed: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// An action that can be requested for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Cancel the order.
    Cancel,
    /// Charge the order again.
    Retry,
    /// Send the order's message again.
    Resend,
}

impl Action {
    /// The end of the path of the action.
    const fn path(self) -> &'static str {
        match self {
            Action::Cancel => "cancel",
            Action::Retry => "retry",
            Action::Resend => "notifications/resend",
        }
    }
}

/// The result of a requested action.
#[derive(Clone, Debug)]
pub struct ActionResult {
    /// The current state of the order.
    pub order: Order,
    /// Whether the action is complete. If not, it continues.
    pub is_complete: bool,
}

/// The result of a list call.
#[derive(Clone, Debug)]
pub struct OrderList {
    /// The orders, newest first.
    pub orders: Vec<Order>,
    /// Whether there are more orders than were requested.
    pub has_more: bool,
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
    pub async fn get(&self, id: &str) -> Result<Order, ApiError> {
        let response = self.send(Method::GET, &format!("/orders/{id}")).await?;
        Ok(Order::parse(&response.text)?)
    }

    /// Returns the charge of an order, or `None` if nothing was charged or refused for it yet.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn get_charge(&self, id: &str) -> Result<Option<Charge>, ApiError> {
        let response = self.access.send(Method::GET, &format!("/orders/{id}/charge")).await?;
        match response.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(serde_json::from_str(&response.text)?)),
            _ => Err(ApiError::Refused(refusal(&response))),
        }
    }

    /// Lists orders, page by page.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn list(&self, arguments: &ListArgs) -> Result<OrderList, ApiError> {
        let (mut orders, mut cursor) = (Vec::new(), None);
        loop {
            let response =
                self.send(Method::GET, &list_path(arguments, arguments.limit.get() - orders.len(), cursor.as_deref())).await?;
            let page: Page = serde_json::from_str(&response.text)?;
            for item in page.items {
                orders.push(Order::parse(item.get())?);
            }
            cursor = page.next_cursor;
            if cursor.is_none() || orders.len() >= arguments.limit.get() {
                return Ok(OrderList { orders, has_more: cursor.is_some() });
            }
        }
    }

    /// Requests an action for an order.
    ///
    /// # Errors
    /// [`ApiError`], also if the order's state forbids the action.
    pub async fn request_action(&self, id: &str, action: Action) -> Result<ActionResult, ApiError> {
        let response = self.send(Method::POST, &format!("/orders/{id}/{}", action.path())).await?;
        Ok(ActionResult { order: Order::parse(&response.text)?, is_complete: response.status != StatusCode::ACCEPTED })
    }

    async fn send(&self, method: Method, path: &str) -> Result<Response, ApiError> {
        let response = self.access.send(method, path).await?;
        if response.status.is_success() { Ok(response) } else { Err(ApiError::Refused(refusal(&response))) }
    }
}

fn list_path(arguments: &ListArgs, remaining: usize, cursor: Option<&str>) -> String {
    let limit = remaining.min(MAX_PAGE).to_string();
    let (from, to) = (arguments.from.map(|time| time.to_string()), arguments.to.map(|time| time.to_string()));
    let pairs = [
        ("login", arguments.login.as_deref()),
        ("state", arguments.state.as_deref()),
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
fn refusal(response: &Response) -> String {
    let body: Value = serde_json::from_str(&response.text).unwrap_or_default();
    if let Some(detail) = body["detail"].as_str() {
        return detail.to_owned();
    }
    match (body["kind"].as_str(), body["message"].as_str()) {
        (Some("Status"), Some(message)) => format!("Kubernetes did not proxy the request: {message}"),
        _ => {
            let text: String = response.text.chars().take(200).collect();
            format!("{}: {}", response.status, text.trim())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{ApiCommand, Arguments, Command};

    fn path_of(line: &str, remaining: usize, cursor: Option<&str>) -> String {
        match Arguments::parse_from(line.split(' ')).command {
            Command::Api(ApiCommand::List(arguments)) => list_path(&arguments, remaining, cursor),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_page_request_has_every_filter_and_at_most_the_maximum_limit() {
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
    fn a_refusal_shows_the_message_of_the_api_or_of_kubernetes() {
        let refused = |status, text: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            refusal(&Response { status, text: text.to_owned() })
        };
        assert_eq!(refused(404, r#"{"title":"Not Found","detail":"there is no order 4711"}"#), "there is no order 4711");
        assert_eq!(
            refused(503, r#"{"kind":"Status","message":"no endpoints available"}"#),
            "Kubernetes did not proxy the request: no endpoints available"
        );
        assert_eq!(refused(502, "<html>\n"), "502 Bad Gateway: <html>");
    }
}
