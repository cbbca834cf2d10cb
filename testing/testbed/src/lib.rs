//! A real Kubernetes, PostgreSQL, NATS and SMTP server on a machine without Docker, to try and
//! test orders.
//!
//! The program `testbed` starts and stops clusters. Tests use this library:
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use std::time::Duration;
//! use orders_testbed::{Cluster, Inbox, Postgres, Process, binary, free_port};
//!
//! let directory = std::path::Path::new("/tmp/example");
//! let cluster = Cluster::control_plane().await?;
//! let namespace = cluster.namespace("billing").await?;
//! let postgres = Postgres::start(directory).await?;
//! let inbox = Inbox::start(directory).await?;
//! let admin = format!("127.0.0.1:{}", free_port());
//! let notify = Process::builder("notify", binary("orders-notify")?, directory)
//!     .env("KUBECONFIG", &cluster.kubeconfig)
//!     .env("DATABASE_URL", postgres.url())
//!     .env("SMTP_URL", inbox.smtp_url())
//!     .env("ADMIN_ADDR", &admin)
//!     .spawn()?;
//! notify.wait_http(&format!("http://{admin}/readyz"), Duration::from_secs(10)).await?;
//! // … everything stops when these values are dropped, except the shared cluster.
//! # Ok(()) }
//! ```

mod buildah;
mod cache;
mod certs;
mod cgroups;
mod cluster;
mod command;
mod containerd;
mod control_plane;
mod external;
mod forward;
mod gobuild;
mod hosts;
mod identity;
mod images;
mod inbox;
mod nats;
mod network;
mod node;
mod node_config;
mod packages;
mod pgbouncer;
mod postgres;
mod process;
mod recorded;
mod shifted_clock;
mod smtp;
mod wait;

pub mod cli;

pub use cache::Cache;
pub use cluster::{Cluster, service_account_token};
pub use external::Target;
pub use inbox::{Inbox, Message};
pub use nats::{BrokerAccess, Nats, NatsOptions};
pub use network::BRIDGE_ADDRESS;
pub use pgbouncer::PgBouncer;
pub use postgres::{Postgres, PostgresOptions};
pub use process::{Builder, Process, Signal, binary, tail};
pub use shifted_clock::shifted_clock;
pub use smtp::{Credentials, serve as serve_inbox};
pub use wait::{TIMED_OUT, WAIT_TIMEOUT, free_port, wait_for, wait_until};
