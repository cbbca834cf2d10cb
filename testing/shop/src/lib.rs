//! Runs the services of orders as processes of this machine, with a real Kubernetes API: for tests,
//! measurements and development.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use orders_shop::{Stack, StackOptions};
//! use orders_testbed::{Cluster, Inbox};
//!
//! let directory = std::path::Path::new("/tmp/example");
//! let cluster = Cluster::control_plane().await?;
//! let inbox = Inbox::start(directory).await?;
//! let stack = Stack::start(&cluster, directory, StackOptions::new(inbox.smtp_url())).await?;
//! println!("the public API is at {}", stack.api_server.url);
//! // … the services stop when these values are dropped; the shared cluster keeps running.
//! # Ok(()) }
//! ```

mod audit;
mod crds;
mod database;
mod interaction;
mod options;
mod service;
mod stack;
mod tokens;

pub use audit::{Audit, AuditResult};
pub use crds::install_crds;
pub use database::Database;
pub use interaction::{Interaction, interaction_from_env};
pub use options::StackOptions;
pub use service::Service;
pub use stack::Stack;
