//! `/users`: creates and shows customers and their accounts.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use kube::ResourceExt;
use orders_crds::{ConditionType, Customer, EMail, Login, Reason, conditions};
use orders_service::{IdempotencyKey, Json, Problem};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{proxy::read_login, state::AppState};
use crate::{customers::has_account, prefer::Prefer};

/// A request to create a customer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserRequest {
    /// Login of the account: 1 to 64 letters, digits, '.', '_', '@', '+' or '-'.
    #[schema(value_type = String, example = "Aurore56")]
    login: Login,
    /// E-mail address of the customer.
    #[schema(value_type = String, example = "Gage_Lind@gmail.com")]
    e_mail: EMail,
}

/// A customer. The balance is at `/billing/account/{login}`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UserView {
    /// Name of the Kubernetes resource.
    #[schema(example = "aurore56-6b1d5f9fc9e2bb36")]
    name: String,
    /// Login of the account.
    #[schema(example = "Aurore56")]
    login: String,
    /// E-mail address of the customer.
    #[schema(example = "Gage_Lind@gmail.com")]
    e_mail: String,
    /// Whether there is a billing account with this login, so that orders can be charged to it and
    /// refills added.
    account_opened: bool,
    /// Reason for `account_opened`: `Opened`, `AlreadyOpen` (the account existed before),
    /// `BillingUnavailable` or `Processing`.
    #[schema(example = "Opened")]
    reason: String,
    /// The reason in words.
    message: String,
    /// When the customer was created (RFC 3339).
    created: Option<String>,
}

impl From<&Customer> for UserView {
    fn from(customer: &Customer) -> Self {
        let conditions = customer.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
        let opened = conditions::find(conditions, ConditionType::AccountOpened);
        UserView {
            name: customer.name_any(),
            login: customer.spec.login.clone(),
            e_mail: customer.spec.email.clone(),
            account_opened: has_account(customer),
            reason: opened.map_or(Reason::Processing.as_str(), |condition| &condition.reason).to_owned(),
            message: opened.map_or("Waiting for the account.", |condition| &condition.message).to_owned(),
            created: customer.creation_timestamp().map(|time| time.0.to_string()),
        }
    }
}

/// Create a customer.
///
/// Creates a `Customer` resource, which opens the billing account of its login with a balance of
/// zero. An account that already exists is unchanged. The response is sent once there is an
/// account.
#[utoipa::path(
    post,
    path = "/users",
    operation_id = "create_user",
    tag = "users",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated request with the same key is answered with the same customer instead of 409"),
        ("Prefer" = Option<String>, Header, description = "`respond-async` or `wait=N`, as for placing an order")
    ),
    request_body = UserRequest,
    responses(
        (status = 201, description = "Created, with an account", body = UserView, headers(("Location" = String, description = "URL of the customer"))),
        (status = 202, description = "Created; the account is not opened yet", body = UserView, headers(("Location" = String, description = "URL of the customer, which shows whether the account is opened"))),
        (status = 409, description = "There is a customer with this login already", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing, unknown or invalid, or the Idempotency-Key was used for another address", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Kubernetes refuses the customer, for example by a policy", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nothing was done: the customer store does not respond; see Retry-After", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "It is unknown whether the customer was created", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn create(
    State(app): State<AppState>,
    key: Option<IdempotencyKey>,
    prefer: Prefer,
    Json(request): Json<UserRequest>,
) -> Result<Response, Problem> {
    let mut customer = app.customers.create(&request.login, &request.e_mail, key.as_ref()).await?;
    if !has_account(&customer) && !prefer.respond_async {
        customer = app.customers.wait_for_account(customer, prefer.wait.unwrap_or(app.wait)).await;
    }
    let code = if has_account(&customer) { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let mut response = (code, Json(UserView::from(&customer))).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/users/{}", request.login)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Show a customer.
///
/// A customer that was created with kubectl is found as well. If several customers have the same
/// login, the first one is shown.
#[utoipa::path(
    get,
    path = "/users/{login}",
    operation_id = "show_user",
    tag = "users",
    params(("login" = String, Path, description = "Login of the account")),
    responses(
        (status = 200, description = "The customer", body = UserView),
        (status = 404, description = "No such customer. There may be an account with this login: an account needs no customer", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The login is invalid", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The customer store does not respond; see Retry-After", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show(
    State(app): State<AppState>,
    login: Result<Path<String>, PathRejection>,
) -> Result<Json<UserView>, Problem> {
    let customer = app.customers.get(&read_login(login)?).await?;
    Ok(Json(UserView::from(&customer)))
}
