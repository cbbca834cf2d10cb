//! The `Order` controller. [`controller`] watches the orders and adds those that need a pass to the
//! [`queue`]. [`reconcile`] makes one pass over an order: it reads the [`intent`], chooses each step
//! with [`decide`], executes it with [`execute`], writes the [`status`] once, publishes events, and
//! adds or removes the finalizer. [`retention`] archives finished orders, has their charges captured
//! ([`captures`]) and removes their resources after their TTL. [`settlement`] settles the charges of orders that no longer exist, and
//! [`settlement_check`] looks for such charges.

mod archived;
pub mod captures;
pub mod context;
pub mod controller;
pub mod decide;
pub mod execute;
pub mod intent;
pub mod late_replies;
pub mod lifecycle;
pub mod manifest;
pub mod pass;
pub mod queue;
pub mod read;
pub mod reconcile;
pub mod retention;
pub mod settlement;
pub mod settlement_check;
pub mod status;
#[cfg(test)]
mod test_doubles;
pub mod watch_echo;
