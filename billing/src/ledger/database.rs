//! The ledger's database.

use std::sync::Arc;

use orders_service::database::{self, Database, Migrations};
use tokio::sync::OnceCell;

use super::group_commit::{MovementBatcher, start_batcher};

/// The schema of the ledger's database.
pub const MIGRATIONS: Migrations =
    Migrations { sqlite: &sqlx::migrate!("migrations/sqlite"), postgres: &sqlx::migrate!("migrations/postgres") };

/// The ledger and its database.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub(super) database: Database,
    /// The group commit of common movements; only on PostgreSQL.
    pub(super) batcher: Option<MovementBatcher>,
    /// The ID, once it was read.
    pub(super) id: Arc<OnceCell<String>>,
}

impl Ledger {
    /// Creates a ledger on this database, whose schema is [`MIGRATIONS`]. The call needs a Tokio
    /// runtime.
    pub fn new(database: Database) -> Self {
        let batcher = (database.kind == database::Kind::Postgres).then(|| start_batcher(database.clone()));
        Ledger { database, batcher, id: Arc::default() }
    }
}
