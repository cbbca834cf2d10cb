//! The `Order` controller. [`controller`] watches the orders and adds those that need a pass to the
//! [`queue`]. [`reconcile`] makes one pass over an order: it reads the [`intent`], chooses each step
//! with [`decide`], executes it with [`execute`], writes the [`status`] once, publishes events, and
//! adds or removes the finalizer. [`retention`] archives finished orders, has their charges captured
//! ([`captures`]) and removes their resources after their TTL. [`deleted_orders`] cancels and archives the orders that users delete.

mod archived;
pub mod captures;
pub mod context;
pub mod controller;
pub mod decide;
pub mod deleted_orders;
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
pub mod status;
#[cfg(test)]
mod test_doubles;
pub mod watch_echo;
