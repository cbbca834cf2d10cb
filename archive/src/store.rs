//! Stores archived orders in the archive's database and reads them.

use futures::TryStreamExt;
use jiff::Timestamp;
use orders_crds::Money;
use orders_service::database::{Database, Kind, Migrations};
use sqlx::{AnyConnection, FromRow, Row, any::AnyRow};

use crate::{
    entry::{Entry, is_valid_column_value},
    error::ArchiveError,
    history,
    listing::{Cursor, Listing},
};

/// The schema of the archive's database.
pub const MIGRATIONS: Migrations =
    Migrations { sqlite: &sqlx::migrate!("migrations/sqlite"), postgres: &sqlx::migrate!("migrations/postgres") };

/// The size of a page of the export, in bytes. A page ends with the order that reaches this size.
pub const EXPORT_BYTES: usize = 4 * 1024 * 1024;

/// Inserts an order. Does nothing if the order is already stored. If a concurrent transaction
/// inserts the same order, the statement waits for that transaction.
const INSERT: &str =
    "INSERT INTO orders (uid, namespace, name, id, login, amount, state, created_at, revision, archived_at, resource)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
     ON CONFLICT (uid) DO NOTHING";

/// Replaces the stored revision of an order.
const REPLACE: &str = "UPDATE orders SET
         namespace = $2, name = $3, id = $4, login = $5, amount = $6, state = $7, created_at = $8, revision = $9,
         archived_at = $10, resource = $11
     WHERE uid = $1";

/// The statement that selects the newest order with a name.
pub const NEWEST_OF_NAME: &str =
    "SELECT resource FROM orders WHERE namespace = $1 AND name = $2 ORDER BY created_at DESC, revision DESC LIMIT 1";

/// The statement that selects a page of the listing, with the conditions of up to two filters.
macro_rules! listing {
    ($filter:literal) => {
        concat!(
            "SELECT created_at, uid, resource FROM orders
             WHERE namespace = $1 AND created_at >= $2 AND (created_at, uid) < ($3, $4)",
            $filter,
            " ORDER BY created_at DESC, uid DESC LIMIT $5"
        )
    };
}

/// An archived order and the time when it was archived, for an audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// The order.
    pub entry: Entry,
    /// When this revision was archived, in microseconds since 1970-01-01 UTC.
    pub archived_at: i64,
}

/// A page of the listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The resources, newest first, as JSON.
    pub resources: Vec<String>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<Cursor>,
}

/// The archive's database.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Creates a store on this database, whose schema is [`MIGRATIONS`].
    pub fn new(database: Database) -> Self {
        Store { database }
    }

    /// Stores an order, unless the same or a later revision is already stored. The stored history
    /// contains the entries of all revisions that arrived. Returns the revision that is stored
    /// after the call.
    ///
    /// # Errors
    /// [`ArchiveError::Database`].
    pub async fn put(&self, entry: &Entry) -> Result<i64, ArchiveError> {
        let mut transaction = self.database.begin_write().await?;
        let revision = self.upsert(&mut transaction, entry, Timestamp::now()).await?;
        transaction.commit().await?;
        Ok(revision)
    }

    /// Stores all of these orders, each as [`Store::put`] does. After an error, none of them is
    /// stored.
    ///
    /// # Errors
    /// [`ArchiveError::Database`].
    pub async fn put_all(&self, entries: &[Entry]) -> Result<(), ArchiveError> {
        let mut entries: Vec<&Entry> = entries.iter().collect();
        // Without a common order, two concurrent batches could deadlock on each other's rows.
        entries.sort_unstable_by_key(|entry| &entry.uid);
        let now = Timestamp::now();
        let mut transaction = self.database.begin_write().await?;
        for entry in entries {
            self.upsert(&mut transaction, entry, now).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Stores an order within a transaction, which then holds the lock on the order's row. Returns
    /// the revision that is stored after the call.
    async fn upsert(&self, transaction: &mut AnyConnection, entry: &Entry, now: Timestamp) -> Result<i64, sqlx::Error> {
        if write(INSERT, &mut *transaction, entry, now).await? > 0 {
            return Ok(entry.revision);
        }
        let stored = sqlx::query(self.select_stored_sql()).bind(&entry.uid).fetch_one(&mut *transaction).await?;
        let (revision, resource): (i64, String) = (stored.try_get("revision")?, stored.try_get("resource")?);
        if entry.revision > revision {
            let merged = Entry { resource: history::merge(&entry.resource, &resource), ..entry.clone() };
            write(REPLACE, transaction, &merged, now).await?;
        } else if entry.revision < revision {
            // The earlier revision may have history entries that the later revision had already
            // dropped.
            let merged = history::merge(&resource, &entry.resource);
            if merged != resource {
                let update = sqlx::query("UPDATE orders SET resource = $2 WHERE uid = $1").bind(&entry.uid).bind(merged);
                update.execute(transaction).await?;
            }
        }
        Ok(entry.revision.max(revision))
    }

    /// Returns the statement that reads the stored order before it is updated. PostgreSQL locks the
    /// row. SQLite needs no lock, because it allows one write transaction at a time.
    const fn select_stored_sql(&self) -> &'static str {
        match self.database.kind {
            Kind::Sqlite => "SELECT revision, resource FROM orders WHERE uid = $1",
            Kind::Postgres => "SELECT revision, resource FROM orders WHERE uid = $1 FOR UPDATE",
        }
    }

    /// Returns the order with this UID, as JSON.
    ///
    /// # Errors
    /// [`ArchiveError::Database`].
    pub async fn find(&self, uid: &str) -> Result<Option<String>, ArchiveError> {
        if !is_valid_column_value(uid) {
            return Ok(None);
        }
        let found = sqlx::query_scalar("SELECT resource FROM orders WHERE uid = $1").bind(uid);
        Ok(found.fetch_optional(&self.database.pool).await?)
    }

    /// Returns the newest order with this name, as JSON.
    ///
    /// # Errors
    /// [`ArchiveError::Database`].
    pub async fn find_named(&self, namespace: &str, name: &str) -> Result<Option<String>, ArchiveError> {
        if !is_valid_column_value(namespace) || !is_valid_column_value(name) {
            return Ok(None);
        }
        let found = sqlx::query_scalar(NEWEST_OF_NAME).bind(namespace).bind(name);
        Ok(found.fetch_optional(&self.database.pool).await?)
    }

    /// Returns a page of the listing.
    ///
    /// # Errors
    /// [`ArchiveError::Database`].
    pub async fn page(&self, listing: &Listing) -> Result<Page, ArchiveError> {
        let start = listing.start();
        let mut query = sqlx::query(listing_sql(listing))
            .bind(&listing.namespace)
            .bind(listing.oldest())
            .bind(start.created_at)
            .bind(start.uid)
            // Select one row more, to detect whether there is another page.
            .bind(i64::from(listing.limit) + 1);
        for filter in [listing.login.as_ref().map(AsRef::as_ref), listing.state.as_deref()].into_iter().flatten() {
            query = query.bind(filter);
        }
        let mut rows = query.fetch_all(&self.database.pool).await?;
        let limit = usize::from(listing.limit);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = match rows.last() {
            Some(last) if has_more => Some(Cursor { created_at: last.try_get("created_at")?, uid: last.try_get("uid")? }),
            _ => None,
        };
        let resources = rows.iter().map(|row| row.try_get("resource")).collect::<Result<_, sqlx::Error>>()?;
        Ok(Page { resources, next })
    }

    /// Returns up to `limit` orders whose UIDs follow `after`, in the order of their UIDs. Returns
    /// fewer orders if they are large. The result is empty only after the last order.
    ///
    /// # Errors
    /// [`ArchiveError::Database`].
    pub async fn export(&self, after: &str, limit: i64) -> Result<Vec<Archived>, ArchiveError> {
        let mut rows = sqlx::query_as("SELECT * FROM orders WHERE uid > $1 ORDER BY uid LIMIT $2")
            .bind(after)
            .bind(limit)
            .fetch(&self.database.pool);
        let (mut page, mut bytes) = (Vec::new(), 0);
        while bytes < EXPORT_BYTES
            && let Some(archived) = rows.try_next().await?
        {
            let archived: Archived = archived;
            bytes += archived.entry.resource.len();
            page.push(archived);
        }
        Ok(page)
    }
}

/// Returns the statement for a page. Each combination of filters has its own statement: if a
/// parameter switched a condition off, a database could not choose the right index. For a login and
/// a state, the database filters all orders of the login, which are few.
pub fn listing_sql(listing: &Listing) -> &'static str {
    match (&listing.login, &listing.state) {
        (None, None) => listing!(""),
        (Some(_), None) => listing!(" AND login = $6"),
        (None, Some(_)) => listing!(" AND state = $6"),
        (Some(_), Some(_)) => listing!(" AND login = $6 AND state = $7"),
    }
}

/// Writes an order with this statement. Returns the number of changed rows.
async fn write(sql: &'static str, transaction: &mut AnyConnection, entry: &Entry, now: Timestamp) -> Result<u64, sqlx::Error> {
    sqlx::query(sql)
        .bind(&entry.uid)
        .bind(&entry.namespace)
        .bind(&entry.name)
        .bind(entry.id)
        .bind(&entry.login)
        .bind(entry.amount.minor())
        .bind(&entry.state)
        .bind(entry.created_at)
        .bind(entry.revision)
        .bind(now.as_microsecond())
        .bind(&entry.resource)
        .execute(transaction)
        .await
        .map(|result| result.rows_affected())
}

impl FromRow<'_, AnyRow> for Archived {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        let entry = Entry {
            uid: row.try_get("uid")?,
            namespace: row.try_get("namespace")?,
            name: row.try_get("name")?,
            id: row.try_get("id")?,
            login: row.try_get("login")?,
            amount: Money::from_minor(row.try_get("amount")?),
            state: row.try_get("state")?,
            created_at: row.try_get("created_at")?,
            revision: row.try_get("revision")?,
            resource: row.try_get("resource")?,
        };
        Ok(Archived { entry, archived_at: row.try_get("archived_at")? })
    }
}
