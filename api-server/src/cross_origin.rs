//! Calls by browsers from pages of other origins. CORS is off unless origins are configured. A browser says
//! with `Sec-Fetch-Site` that another site makes a request (Fetch Metadata); a request that changes
//! something is then refused. Without this, any page could cancel orders: a POST without a body needs no
//! preflight.

use std::{str::FromStr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use orders_contracts::IDEMPOTENCY_KEY;
use orders_service::Problem;
use tower_http::cors::CorsLayer;

/// How long a browser may keep the answer to a preflight.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// An origin: the scheme, the host and the port of a page (RFC 6454, 6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is not an origin such as https://shop.example.com");
        let uri: Uri = text.parse().map_err(|_| error())?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        // Browsers send the origin in lowercase, without a path.
        let is_origin = text == format!("{}://{authority}", uri.scheme_str().unwrap_or_default())
            && text == text.to_lowercase()
            && !authority.contains('@');
        if is_http && is_origin { HeaderValue::from_str(text).map(Origin).map_err(|_| error()) } else { Err(error()) }
    }
}

/// Lets pages of these origins call the API, and refuses requests of all other sites that change something.
pub fn protect(router: Router, origins: Vec<Origin>) -> Router {
    let allowed: Arc<[HeaderValue]> = origins.into_iter().map(|Origin(origin)| origin).collect();
    let checked = allowed.clone();
    let router = router.layer(from_fn(move |request, next| check(checked.clone(), request, next)));
    if allowed.is_empty() {
        return router;
    }
    let header = HeaderName::from_static;
    let cors = CorsLayer::new()
        .allow_origin(allowed.to_vec())
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE, header(IDEMPOTENCY_KEY), header("prefer"), header("last-event-id")])
        .expose_headers([header::LOCATION, header::RETRY_AFTER])
        .max_age(MAX_AGE);
    router.layer(cors)
}

async fn check(allowed: Arc<[HeaderValue]>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_cross_site = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    let is_allowed = headers.get(header::ORIGIN).is_some_and(|origin| allowed.contains(origin));
    if is_cross_site && !is_allowed && !request.method().is_safe() {
        let detail =
            "a page of another site made this request; nothing was done. The administrator of the API can allow its origin";
        return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_a_host_and_nothing_else() {
        for text in ["https://shop.example.com", "http://localhost:3000", "https://[fd00::1]:8443"] {
            assert_eq!(text.parse(), Ok(Origin(HeaderValue::from_static(text))));
        }
        for text in [
            "",
            "*",
            "null",
            "shop.example.com",
            "https://",
            "https://shop.example.com/",
            "https://Shop.example.com",
            "ftp://x",
            "https://u@x",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
