//! Adds examples of problems to the OpenAPI documents. Each example has the status of its response.

use axum::http::StatusCode;
use utoipa::openapi::{OpenApi, RefOr, response::Response};

use crate::problem::{CONTENT_TYPE, Problem};

/// Adds an example to each problem that has none. The example has the status of the response, and
/// the description of the response as its detail.
pub fn add(openapi: &mut OpenApi) {
    for path in openapi.paths.paths.values_mut() {
        let operations = [&mut path.get, &mut path.put, &mut path.post, &mut path.delete, &mut path.patch];
        for operation in operations.into_iter().flatten() {
            for (status, response) in &mut operation.responses.responses {
                if let (Ok(status), RefOr::T(response)) = (status.parse(), response) {
                    add_to(response, status);
                }
            }
        }
    }
}

fn add_to(response: &mut Response, status: StatusCode) {
    if let Some(RefOr::T(content)) = response.content.get_mut(CONTENT_TYPE) {
        let example = || serde_json::to_value(Problem::new(status, &response.description)).ok();
        content.example = content.example.take().or_else(example);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use utoipa::OpenApi as _;

    use super::*;
    use crate::problem::ServiceCallProblems;

    #[utoipa::path(
        get,
        path = "/",
        responses(
            (status = 200, description = "Here it is", body = String),
            (status = 404, description = "No such thing", body = Problem, content_type = CONTENT_TYPE),
            (status = 409, description = "Taken", body = Problem, content_type = CONTENT_TYPE, example = json!("its own")),
            ServiceCallProblems
        )
    )]
    #[allow(dead_code, reason = "describes a call")]
    fn show() {}

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(show))]
    struct Document;

    #[test]
    fn a_problem_without_an_example_gets_one_with_the_status_of_its_response() {
        let mut document = Document::openapi();
        add(&mut document);
        let document = serde_json::to_value(document).unwrap();
        let content = |status: &str| document["paths"]["/"]["get"]["responses"][status]["content"].clone();
        assert_eq!(
            content("404")[CONTENT_TYPE]["example"],
            json!({"type": "about:blank", "title": "Not Found", "status": 404, "detail": "No such thing"})
        );
        assert_eq!(content("503")[CONTENT_TYPE]["example"]["status"], 503);
        assert_eq!(content("409")[CONTENT_TYPE]["example"], "its own");
        assert!(content("200")["text/plain"].get("example").is_none());
    }
}
