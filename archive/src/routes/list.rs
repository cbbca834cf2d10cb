//! Orders, listed page by page.

use axum::{
    extract::{FromRequestParts, State},
    http::request::Parts,
};
use orders_crds::Login;
use orders_service::{Json, Problem, problem::ServiceCallProblems, query};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{Archive, Reader, Resource};
use crate::{
    entry::is_column,
    listing::{Listing, MAX_LIMIT},
};

/// Which orders to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes parameters")]
struct ListParams {
    /// Only orders of this namespace.
    namespace: String,
    /// Only orders of this login.
    login: Option<String>,
    /// Only orders whose condition `Succeeded` has this reason, such as `Paid`.
    state: Option<String>,
    /// Only orders created then or later: microseconds since 1970-01-01 UTC.
    from: Option<i64>,
    /// Only orders created earlier: microseconds since 1970-01-01 UTC.
    to: Option<i64>,
    /// Orders on a page: 1 to 100, 20 if not given.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<i64>,
    /// Only orders after this one: `next` of the page before, the time of its last order and its UID with a comma between.
    #[param(example = "1737957687000000,b5f0c1d2-0000-4000-8000-000000000001")]
    before: Option<String>,
}

/// `?namespace=…&…`, checked.
pub(super) struct ListQuery(Listing);

impl<S: Send + Sync> FromRequestParts<S> for ListQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        read(&query::parameters(parts, state).await?).map(ListQuery)
    }
}

fn read(pairs: &[(String, String)]) -> Result<Listing, Problem> {
    let mut listing = Listing::of("");
    for (name, value) in pairs {
        let invalid = |why: &dyn std::fmt::Display| query::invalid(name, why);
        let column = || is_column(value).then(|| value.clone()).ok_or_else(|| invalid(&"nothing has this value"));
        let time = || value.parse().map_err(|_| invalid(&"must be a whole number: microseconds since 1970-01-01 UTC"));
        match name.as_str() {
            "namespace" => listing.namespace = column()?,
            "login" => listing.login = Some(Login::try_from(value.clone()).map_err(|error| invalid(&error))?),
            "state" => listing.state = Some(column()?),
            "from" => listing.from = Some(time()?),
            "to" => listing.to = Some(time()?),
            "limit" => listing.limit = query::limit(name, value, MAX_LIMIT)?,
            "before" => listing.before = Some(value.parse().map_err(|error| invalid(&error))?),
            _ => {
                return Err(invalid(&"unknown parameter; there are namespace, login, state, from, to, limit and before"));
            }
        }
    }
    if listing.namespace.is_empty() {
        return Err(Problem::invalid("namespace", "namespace: give it, as ?namespace=NAME"));
    }
    Ok(listing)
}

/// A page of orders, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct OrderPage {
    items: Vec<Resource>,
    /// Ask for the next page with this as `before`; null on the last one.
    next: Option<String>,
}

/// List orders.
///
/// Newest first, and of the same time those with the larger UID first. Orders that come meanwhile move no other to another
/// page. For the accounts of the operator, the api-server and the audit.
#[utoipa::path(
    get,
    path = "/archive/orders",
    tag = "orders",
    params(ListParams),
    responses(
        (status = 200, description = "A page of orders", body = OrderPage),
        (status = 422, description = "A parameter is missing, unknown, invalid or there twice", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn list(
    _: Reader,
    State(archive): State<Archive>,
    ListQuery(listing): ListQuery,
) -> Result<Json<OrderPage>, Problem> {
    let page = archive.store.page(&listing).await?;
    let items = page.resources.into_iter().map(Resource::try_from).collect::<Result<_, _>>()?;
    Ok(Json(OrderPage { items, next: page.next.map(|place| place.to_string()) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::Place;

    fn listing(query: &str) -> Result<Listing, Problem> {
        let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        read(&query.split('&').filter_map(pair).collect::<Vec<_>>())
    }

    #[test]
    fn parameters_are_read() {
        let all = listing("namespace=shop&login=anna&state=Paid&from=-5&to=7&limit=100&before=6,b").unwrap();
        let expected = Listing {
            namespace: "shop".into(),
            login: Login::try_from("anna".to_owned()).ok(),
            state: Some("Paid".into()),
            from: Some(-5),
            to: Some(7),
            limit: 100,
            before: Some(Place { created_at: 6, uid: "b".into() }),
        };
        assert_eq!(all, expected);
        assert_eq!(listing("namespace=shop").unwrap(), Listing::of("shop"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (query, field) in [
            ("", "namespace"),
            ("login=anna", "namespace"),
            ("namespace=", "namespace"),
            ("namespace=a\0", "namespace"),
            ("namespace=shop&login=", "login"),
            ("namespace=shop&login=a b", "login"),
            ("namespace=shop&state=", "state"),
            ("namespace=shop&from=now", "from"),
            ("namespace=shop&to=1.5", "to"),
            ("namespace=shop&limit=0", "limit"),
            ("namespace=shop&limit=101", "limit"),
            ("namespace=shop&before=5", "before"),
            ("namespace=shop&sort=name", "sort"),
        ] {
            let problem = listing(query).expect_err(query);
            assert_eq!((problem.status, problem.field.as_deref()), (422, Some(field)), "{query}");
        }
        let long = listing(&format!("{}=1", "x".repeat(1000))).unwrap_err();
        assert!(long.detail.len() < 200, "{long:?}");
    }
}
