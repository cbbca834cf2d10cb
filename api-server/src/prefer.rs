//! Parses the `Prefer` header (RFC 7240), in which a client sets how long it waits for the outcome.

use std::{convert::Infallible, time::Duration};

use axum::{extract::FromRequestParts, http::request::Parts};

/// The longest wait that a client can set. Many proxies end a request after 60 s.
pub const MAX_WAIT: Duration = Duration::from_secs(55);

/// The preferences of the client. Unknown preferences are ignored, as the RFC requires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// Respond immediately, before the outcome is known.
    pub respond_async: bool,
    /// The longest time to wait for the outcome.
    pub wait: Option<Duration>,
}

impl Prefer {
    fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut prefer = Prefer::default();
        for preference in values.flat_map(|value| value.split([',', ';'])) {
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => prefer.respond_async = true,
                // The first value counts.
                "wait" if prefer.wait.is_none() => {
                    prefer.wait = value.parse().ok().map(|seconds| Duration::from_secs(seconds).min(MAX_WAIT));
                }
                _ => {}
            }
        }
        prefer
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Prefer {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Prefer::parse(parts.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferences_of_clients_are_parsed() {
        let parse = |text: &str| Prefer::parse([text].into_iter());
        assert_eq!(parse("respond-async"), Prefer { respond_async: true, wait: None });
        assert_eq!(parse("respond-async, wait=3"), Prefer { respond_async: true, wait: Some(Duration::from_secs(3)) });
        assert_eq!(parse("Wait=\"0\"").wait, Some(Duration::ZERO));
        assert_eq!(parse("wait=99999999").wait, Some(MAX_WAIT));
        assert_eq!(parse("wait=-1, wait=x, return=minimal"), Prefer::default());
    }
}
