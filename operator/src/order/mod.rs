//! The life of an `Order`. [`controller`] watches the orders and brings each into the
//! [`queue`]; [`reconcile`] is one pass over an order: it reads the [`intent`], has
//! [`decide`] choose each step and [`execute`] carry it out, writes the [`status`] once,
//! publishes events and settles the finalizer. [`removal`] archives finished orders and
//! removes them; [`deletion`] settles the orders that users delete.

pub mod context;
pub mod controller;
pub mod decide;
pub mod deletion;
pub mod execute;
pub mod intent;
pub mod late_replies;
pub mod queue;
pub mod read;
pub mod reconcile;
pub mod removal;
pub mod status;
pub mod watch_echo;
pub mod work;
