//! The client of the archive, which has the orders that are no longer Kubernetes resources.

use std::time::Duration;

use orders_crds::Order;
use orders_service::{Problem, http_client::Peer, token_file::TokenFile};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};

use crate::listing::{Cursor, Filter, microseconds};

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum size of a response, in bytes. A hundred orders of the maximum size fit in.
const MAX_RESPONSE: usize = 8 * 1024 * 1024;

/// A client of the archive for the orders of one namespace.
#[derive(Clone, Debug)]
pub struct Archive {
    peer: Peer,
    namespace: String,
}

/// A page of archived orders, newest first.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// The orders.
    pub items: Vec<Order>,
    /// Set if there are more orders.
    pub next: Option<String>,
}

impl Archive {
    /// Creates a client of the archive at this URL for the orders of this namespace. Each call
    /// carries the token.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(url: &str, token: TokenFile, namespace: String) -> Result<Self, reqwest::Error> {
        Ok(Archive { peer: Peer::new(url, Some(token), TIMEOUT, MAX_RESPONSE)?, namespace })
    }

    /// Returns the latest archived order with this name.
    ///
    /// # Errors
    /// 503 if the archive does not respond.
    pub async fn get(&self, name: &str) -> Result<Option<Order>, Problem> {
        self.read(&format!("/archive/namespaces/{}/orders/{name}", self.namespace), &[]).await
    }

    /// Returns up to `limit` archived orders that pass the filter, after this cursor.
    ///
    /// # Errors
    /// 503 if the archive does not respond.
    pub async fn page(&self, filter: &Filter, after: Option<&Cursor>, limit: usize) -> Result<Page, Problem> {
        let mut query = vec![("namespace", self.namespace.clone()), ("limit", limit.to_string())];
        query.extend(filter.login.as_ref().map(|login| ("login", login.to_string())));
        query.extend(filter.state.as_ref().map(|state| ("state", state.clone())));
        query.extend(filter.from.map(|from| ("from", microseconds(from).to_string())));
        query.extend(filter.to.map(|to| ("to", microseconds(to).to_string())));
        query.extend(after.map(|cursor| ("before", format!("{},{}", cursor.created_at, cursor.uid))));
        let page = self.read("/archive/orders", &query).await?;
        page.ok_or_else(|| unavailable(&"the list of orders was not found (404)"))
    }

    async fn read<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<Option<T>, Problem> {
        let request = self.peer.request(Method::GET, path).query(query);
        let (status, body) = self.peer.send(request).await.map_err(|error| unavailable(&error))?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map(Some).map_err(|error| unavailable(&error)),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(unavailable(&format!("{status}: {}", String::from_utf8_lossy(&body)))),
        }
    }
}

fn unavailable(cause: &dyn std::fmt::Display) -> Problem {
    tracing::warn!(%cause, "the archive does not respond");
    Problem::unavailable("the archive of finished orders does not respond; try again")
}
