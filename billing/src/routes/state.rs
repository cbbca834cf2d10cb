//! The state that the handlers share, and the authentication of callers.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
};
use orders_contracts::LEDGER;
use orders_service::{Problem, auth::Authenticator};

use crate::ledger::Ledger;

/// The state that the handlers share.
#[derive(Clone)]
pub struct Billing {
    /// The ledger.
    pub ledger: Ledger,
    /// The authenticator of callers.
    pub authenticator: Authenticator,
    /// The service accounts that may call the routes.
    pub callers: Arc<Callers>,
}

/// The service accounts that may make calls which change or reveal data.
#[derive(Debug)]
pub struct Callers {
    /// The operator's account. It may open accounts, and charge, close and refund.
    pub operator: String,
    /// The api-server's account. It may register and refill accounts, and read charges.
    pub api_server: String,
    /// The audit's account. It may read the whole ledger.
    pub audit: Option<String>,
}

/// An extractor that accepts only the operator, and only a call for this ledger. It is the first parameter of a handler, so that the
/// service reads nothing else of an unauthorized request.
pub(super) struct Operator;

/// An extractor that accepts only the api-server.
pub(super) struct ApiServer;

/// An extractor that accepts only the operator and the api-server.
pub(super) struct ChargeReader;

/// An extractor that accepts only the operator and the audit.
pub(super) struct Auditor;

impl FromRequestParts<Billing> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, billing: &Billing) -> Result<Self, Problem> {
        billing.authenticator.require(&parts.headers, &[&billing.callers.operator]).await?;
        if let Some(expected) = parts.headers.get(LEDGER) {
            let own = billing.ledger.id().await?;
            if expected != own {
                let detail = format!("this billing service has ledger {own}, and the call is for another one; nothing was done");
                return Err(Problem::new(StatusCode::CONFLICT, detail));
            }
        }
        Ok(Operator)
    }
}

impl FromRequestParts<Billing> for ApiServer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, billing: &Billing) -> Result<Self, Problem> {
        billing.authenticator.require(&parts.headers, &[&billing.callers.api_server]).await.map(|()| ApiServer)
    }
}

impl FromRequestParts<Billing> for ChargeReader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, billing: &Billing) -> Result<Self, Problem> {
        let Callers { operator, api_server, .. } = &*billing.callers;
        billing.authenticator.require(&parts.headers, &[operator, api_server]).await.map(|()| ChargeReader)
    }
}

impl FromRequestParts<Billing> for Auditor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, billing: &Billing) -> Result<Self, Problem> {
        let Callers { operator, audit, .. } = &*billing.callers;
        billing.authenticator.require(&parts.headers, &[operator, audit.as_deref().unwrap_or(operator)]).await.map(|()| Auditor)
    }
}
