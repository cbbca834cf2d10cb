//! The route that lists orders page by page.

use axum::extract::State;
use orders_crds::Login;
use orders_service::{
    Json, Problem,
    problem::ServiceCallProblems,
    query::{Limit, Query},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    resource::Resource,
    state::{Archive, Reader},
};
use crate::{
    entry::is_valid_column_value,
    listing::{Cursor, DEFAULT_LIMIT, Listing, MAX_LIMIT},
};

/// The query parameters of the listing.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only orders of this namespace.
    #[param(value_type = String)]
    namespace: Column,
    /// Only orders of this login.
    #[param(value_type = Option<String>)]
    login: Option<Login>,
    /// Only orders whose condition `Succeeded` has this reason, such as `Paid`.
    #[param(value_type = Option<String>)]
    state: Option<Column>,
    /// Only orders created at this time or later: microseconds since 1970-01-01 UTC.
    from: Option<i64>,
    /// Only orders created before this time: microseconds since 1970-01-01 UTC.
    to: Option<i64>,
    /// Maximum number of orders on a page, from 1 to 100. The default is 20.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<Limit<MAX_LIMIT>>,
    /// Only orders after this cursor. Use `next` of the previous page: the creation time and the
    /// UID of its last order, separated by a comma.
    #[param(value_type = Option<String>, example = "1737957687000000,b5f0c1d2-0000-4000-8000-000000000001")]
    before: Option<Cursor>,
}

/// A text that a column of the archive may contain.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Column(String);

impl TryFrom<String> for Column {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_valid_column_value(&text) { Ok(Column(text)) } else { Err("no order has this value") }
    }
}

impl From<ListParams> for Listing {
    fn from(params: ListParams) -> Self {
        Listing {
            namespace: params.namespace.0,
            login: params.login,
            state: params.state.map(|Column(state)| state),
            from: params.from,
            to: params.to,
            limit: params.limit.map_or(DEFAULT_LIMIT, |Limit(limit)| limit),
            before: params.before,
        }
    }
}

/// A page of orders, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct OrderPage {
    items: Vec<Resource>,
    /// The value of `before` for the next page; null on the last page.
    next: Option<String>,
}

/// List orders.
///
/// The orders are sorted newest first. Orders with the same creation time are sorted by UID,
/// largest first. An order that is archived during the listing moves no other order to another
/// page. Only the service accounts of the operator, the api-server and the audit may call this.
#[utoipa::path(
    get,
    path = "/archive/orders",
    tag = "orders",
    params(ListParams),
    responses(
        (status = 200, description = "A page of orders", body = OrderPage),
        (status = 422, description = "A parameter is missing, unknown, invalid or repeated", body = Problem, content_type = "application/problem+json"),
        ServiceCallProblems
    )
)]
pub(super) async fn list(
    _: Reader,
    State(archive): State<Archive>,
    Query(params): Query<ListParams>,
) -> Result<Json<OrderPage>, Problem> {
    let page = archive.store.page(&params.into()).await?;
    let items = page.resources.into_iter().map(Resource::try_from).collect::<Result<_, _>>()?;
    Ok(Json(OrderPage { items, next: page.next.map(|cursor| cursor.to_string()) }))
}

#[cfg(test)]
mod tests {
    use orders_service::query;

    use super::*;

    fn listing(query: &str) -> Result<Listing, Problem> {
        query::read::<ListParams>(query).map(Listing::from)
    }

    #[test]
    fn parameters_are_parsed() {
        let all = listing("namespace=shop&login=anna&state=Paid&from=-5&to=7&limit=100&before=6,b").unwrap();
        let expected = Listing {
            namespace: "shop".into(),
            login: Login::try_from("anna".to_owned()).ok(),
            state: Some("Paid".into()),
            from: Some(-5),
            to: Some(7),
            limit: 100,
            before: Some(Cursor { created_at: 6, uid: "b".into() }),
        };
        assert_eq!(all, expected);
        assert_eq!(listing("namespace=shop").unwrap(), Listing::of("shop"));
    }

    #[test]
    fn the_problem_names_the_invalid_parameter() {
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
    }
}
