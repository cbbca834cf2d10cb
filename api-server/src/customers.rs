//! Creates and finds customers: one resource per login.

use std::{fmt::Write, time::Duration};

use axum::http::StatusCode;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
    core::Status,
    runtime::wait::await_condition,
};
use orders_crds::{Customer, CustomerSpec, CustomerStatus, EMail, Login, customer::KEY_ANNOTATION};
use orders_service::{IdempotencyKey, Problem};
use sha2::{Digest, Sha256};

use crate::kube_call::call;

/// The maximum length of the part of a login with which the name of its resource begins, in
/// characters.
const MAX_LOGIN_PREFIX: usize = 40;

/// The customers of one namespace.
#[derive(Clone)]
pub struct Customers(Api<Customer>);

impl Customers {
    /// Accesses the customers of this namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Customers(Api::namespaced(client, namespace))
    }

    /// Creates a customer, or returns the customer that an earlier request with the same key
    /// created.
    ///
    /// # Errors
    /// 409 if another request created a customer with this login; 422 if the key was used for
    /// another address or a field is invalid; 403 if Kubernetes refuses the customer; 503 if it was not
    /// created; 504 if that is unknown.
    pub async fn create(&self, login: &Login, email: &EMail, key: Option<&IdempotencyKey>) -> Result<Customer, Problem> {
        // A customer that was created with kubectl can have any name.
        if let Some(existing) = self.find(login).await? {
            return check_same_request(existing, email, key);
        }
        let spec = CustomerSpec { login: login.to_string(), email: email.to_string() };
        let mut customer = Customer::new(&resource_name(login), spec);
        if let Some(key) = key {
            customer.annotations_mut().insert(KEY_ANNOTATION.to_owned(), key.as_str().to_owned());
        }
        match call(self.0.create(&PostParams::default(), &customer)).await {
            Ok(created) => Ok(created),
            // Another request has created a customer in the meantime.
            Err(error) if error.status().is_some_and(Status::is_already_exists) => match self.find(login).await? {
                Some(existing) => check_same_request(existing, email, key),
                None => Err(Problem::unavailable("the customer was deleted in the meantime; nothing was done. Try again")),
            },
            Err(error) => {
                let repeat = "Get the customer by its login, or send the request again with the same Idempotency-Key";
                Err(error.write_problem("customer", repeat))
            }
        }
    }

    /// Returns the customer with this login.
    ///
    /// # Errors
    /// 404, or 503 if the Kubernetes API does not respond.
    pub async fn get(&self, login: &Login) -> Result<Customer, Problem> {
        self.find(login).await?.ok_or_else(|| Problem::not_found("there is no customer with this login"))
    }

    /// Returns the customer once it has an account, or unchanged after `timeout`.
    pub async fn wait_for_account(&self, customer: Customer, timeout: Duration) -> Customer {
        let is_open = |customer: Option<&Customer>| customer.is_some_and(has_account);
        let name = customer.name_any();
        match tokio::time::timeout(timeout, await_condition(self.0.clone(), &name, is_open)).await {
            Ok(Ok(Some(updated))) if updated.uid() == customer.uid() => updated,
            Ok(Err(error)) => {
                tracing::warn!(customer = name, %error, "the wait for the account failed");
                customer
            }
            _ => customer,
        }
    }

    async fn find(&self, login: &Login) -> Result<Option<Customer>, Problem> {
        // No character of a login has a meaning in a field selector.
        let selector = ListParams::default().fields(&format!("spec.login={login}"));
        let mut found = call(self.0.list(&selector)).await.map_err(|error| error.read_problem())?.items;
        // If several customers have this login, the first one counts, by creation time and name.
        found.sort_by_key(|customer| (customer.creation_timestamp(), customer.name_any()));
        Ok(found.into_iter().next())
    }
}

/// Whether a customer has its account.
pub fn has_account(customer: &Customer) -> bool {
    customer.status.as_ref().is_some_and(CustomerStatus::is_account_open)
}

/// Returns an existing customer, but only to the request that created it.
fn check_same_request(existing: Customer, email: &EMail, key: Option<&IdempotencyKey>) -> Result<Customer, Problem> {
    let created_with = existing.annotations().get(KEY_ANNOTATION).map(String::as_str);
    match key {
        Some(key) if created_with != Some(key.as_str()) => Err(login_taken()),
        None => Err(login_taken()),
        Some(_) if existing.spec.email != email.as_ref() => {
            Err(Problem::invalid("Idempotency-Key", "this Idempotency-Key was used for another e-mail address"))
        }
        Some(_) => Ok(existing),
    }
}

fn login_taken() -> Problem {
    let problem = Problem::new(StatusCode::CONFLICT, "there is a customer with this login already; nothing was changed");
    Problem { field: Some("login".to_owned()), ..problem }
}

/// The name of a login's resource: readable, and different for each login. The name contains a
/// hash, because a login may have characters and uppercase letters that a resource name may not
/// have.
fn resource_name(login: &Login) -> String {
    let to_plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let mut name: String = login.as_ref().chars().take(MAX_LOGIN_PREFIX).map(to_plain).collect();
    name.push('-');
    for byte in &Sha256::digest(login.as_ref())[..8] {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str) -> Login {
        Login::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn each_login_has_a_different_name_that_kubernetes_accepts() {
        let long = "x".repeat(64);
        let logins = ["Aurore56", "aurore56", "me@example.com", "me.example-com", "a_", "0", long.as_str()];
        let names: std::collections::HashSet<_> = logins.iter().map(|text| resource_name(&login(text))).collect();
        assert_eq!(names.len(), logins.len());
        for name in names {
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(name.len() <= 63 && name.chars().all(is_plain) && !name.starts_with('-'), "{name}");
        }
        assert!(resource_name(&login("Aurore56")).starts_with("aurore56-"));
    }

    #[test]
    fn only_the_request_that_created_a_customer_receives_it() {
        let email = |text: &str| EMail::try_from(text.to_owned()).unwrap();
        let key = |text: &str| IdempotencyKey::parse(text).unwrap();
        let spec = CustomerSpec { login: "anna".into(), email: "a@b.cd".into() };
        let mut existing = Customer::new("anna-1", spec);
        let status = |existing: &Customer, email, key: Option<IdempotencyKey>| {
            check_same_request(existing.clone(), &email, key.as_ref()).err().map(|p| p.status)
        };
        assert_eq!(status(&existing, email("a@b.cd"), None), Some(409));
        assert_eq!(status(&existing, email("a@b.cd"), Some(key("k"))), Some(409), "created with kubectl");
        existing.annotations_mut().insert(KEY_ANNOTATION.to_owned(), "k".to_owned());
        assert_eq!(status(&existing, email("a@b.cd"), Some(key("k"))), None);
        assert_eq!(status(&existing, email("x@b.cd"), Some(key("k"))), Some(422));
        assert_eq!(status(&existing, email("a@b.cd"), Some(key("other"))), Some(409));
    }
}
