//! The requests and responses of the archive's HTTP API. An order is represented as its Kubernetes
//! resource.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Response to `PUT /archive/orders/{uid}`: an archived order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ArchivedOrder {
    /// UID of the order.
    pub uid: String,
    /// Revision of the archived order. It is larger than the revision in the request if a later
    /// revision was archived before.
    #[schema(example = 1042)]
    pub revision: i64,
}

/// Response to `POST /archive/orders`: the number of archived orders.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ArchivedCount {
    /// Number of orders in the request. Each of them is archived now, in the revision that was sent
    /// or a later one.
    pub stored: usize,
}
