//! The services of orders as processes of this machine, against a real Kubernetes: for tests,
//! measurements and the inner loop of development.
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
//! println!("orders are taken at {}", stack.api_server.url);
//! // … the services end when these values are dropped; the cluster is shared and stays.
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

pub use audit::{Audit, Audited};
pub use crds::install_crds;
pub use database::Database;
pub use interaction::Interaction;
pub use options::StackOptions;
pub use service::Service;
pub use stack::Stack;
