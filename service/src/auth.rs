//! Authentication of calls between services, on the receiver's side.
//!
//! A caller sends a service-account token for the audience of this service. A TokenReview by the
//! Kubernetes API server determines whether the token is valid and which account it belongs to. The
//! result is cached for a short time. Without a result, the call is refused (the check fails
//! closed).

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};
use moka::future::Cache;
use sha2::{Digest, Sha256};

use crate::Problem;

/// How long the result of a TokenReview is cached. A revoked token works for at most this long.
const RESULT_TTL: Duration = Duration::from_secs(30);

/// How long a TokenReview may take.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks callers' tokens.
#[derive(Clone)]
pub struct Authenticator {
    reviews: Api<TokenReview>,
    audience: String,
    /// The results, by the hash of the token, so that no token is stored. `None`: not
    /// authenticated.
    results: Cache<[u8; 32], Option<Arc<str>>>,
}

impl Authenticator {
    /// Creates an authenticator that accepts tokens for this audience.
    pub fn new(client: Client, audience: String) -> Self {
        let results = Cache::builder().max_capacity(1000).time_to_live(RESULT_TTL).build();
        Authenticator { reviews: Api::all(client), audience, results }
    }

    /// Allows the call if its bearer token belongs to one of the `allowed` accounts
    /// (`system:serviceaccount:NAMESPACE:NAME`).
    ///
    /// # Errors
    /// 401 without a valid token; 403 with the token of another account; 503 if the API server
    /// cannot review the token.
    pub async fn require(&self, headers: &HeaderMap, allowed: &[&str]) -> Result<(), Problem> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| unauthorized("this call is for the order services only: it needs a service-account token"))?;
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let result = self.results.try_get_with(hash, self.review(token)).await;
        let account = result
            .map_err(|error: Arc<ReviewError>| {
                tracing::warn!(%error, "cannot review a token");
                Problem::unavailable("the caller's token cannot be checked now")
            })?
            .ok_or_else(|| unauthorized("the token is not valid for this service"))?;
        if allowed.contains(&&*account) {
            Ok(())
        } else {
            tracing::warn!(%account, "refused a call of this account");
            Err(Problem::new(StatusCode::FORBIDDEN, format!("{account} may not make this call")))
        }
    }

    async fn review(&self, token: &str) -> Result<Option<Arc<str>>, ReviewError> {
        let review = TokenReview {
            spec: TokenReviewSpec { audiences: Some(vec![self.audience.clone()]), token: token.to_owned() },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let reviewed = tokio::time::timeout(REVIEW_TIMEOUT, self.reviews.create(&params, &review)).await??;
        let status = reviewed.status.unwrap_or_default();
        let is_for_this_service = status.audiences.is_some_and(|audiences| audiences.contains(&self.audience));
        let name = status.user.and_then(|user| user.username);
        Ok(name.filter(|_| is_for_this_service && status.authenticated == Some(true)).map(Arc::from))
    }
}

#[derive(Debug, thiserror::Error)]
enum ReviewError {
    #[error("the API server did not respond to a TokenReview in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("TokenReview: {0}")]
    Kube(#[from] kube::Error),
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail)
}
