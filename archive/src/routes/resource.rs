//! An archived resource in a response, and the refusal of a resource.

use axum::http::StatusCode;
use orders_service::Problem;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::entry::InvalidResource;

/// An Order resource as Kubernetes stored it, without its managed fields. `kubectl explain order`
/// documents its fields.
#[derive(Debug, Serialize, ToSchema)]
#[schema(value_type = Object)]
pub(super) struct Resource(Box<RawValue>);

impl TryFrom<String> for Resource {
    type Error = Problem;

    fn try_from(json: String) -> Result<Self, Problem> {
        RawValue::from_string(json).map(Resource).map_err(|error| Problem::internal(&error))
    }
}

impl From<InvalidResource> for Problem {
    fn from(error: InvalidResource) -> Problem {
        let detail = error.to_string();
        Problem { field: error.field, ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }
}
