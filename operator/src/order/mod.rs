//! The `Order` controller. [`controller`] watches the orders and adds those that need a pass to the
//! [`queue`]. [`reconcile`] makes one pass over an order: it reads the [`intent`], chooses each step
//! with [`decide`], executes it with [`execute`], writes the [`status`] once, publishes events, and
//! adds or removes the finalizer. [`removal`] archives finished orders and removes their resources.
//! [`deletion`] cancels and archives the orders that users delete.

pub mod context;
pub mod controller;
pub mod decide;
pub mod deletion;
pub mod execute;
pub mod intent;
pub mod late_replies;
pub mod pass;
pub mod queue;
pub mod read;
pub mod reconcile;
pub mod removal;
#[cfg(test)]
mod script;
pub mod status;
pub mod watch_echo;
pub mod work;
