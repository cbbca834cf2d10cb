//! The archive's HTTP calls. An order is sent and answered as the resource that Kubernetes has.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `PUT /archive/orders/{uid}`: an archived order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Kept {
    /// Its UID.
    pub uid: String,
    /// Its revision. Larger than that of the request if a later one came before.
    #[schema(example = 1042)]
    pub revision: i64,
}

/// `POST /archive/orders`: how many orders were archived.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Stored {
    /// As many as were sent: each is archived now, in the revision that was sent or a later one.
    pub stored: usize,
}
