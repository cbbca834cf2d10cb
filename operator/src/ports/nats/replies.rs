//! The replies of billing and notify that have arrived, by key.

use std::sync::Arc;

use orders_contracts::events::{Decided, NotificationChanged, NotificationState, Refunded};
use orders_crds::Outcome;
use orders_service::broker::reply_table::ReplyTable;

/// The replies of billing and notify, by key. The listener delivers them, and the clients receive
/// them.
#[derive(Clone, Debug)]
pub(super) struct Replies {
    pub(super) outcomes: Arc<ReplyTable<Decided>>,
    pub(super) refunds: Arc<ReplyTable<Refunded>>,
    pub(super) notifications: Arc<ReplyTable<NotificationChanged>>,
}

impl Replies {
    /// Creates empty tables.
    pub(super) fn new() -> Self {
        Replies {
            outcomes: Arc::new(ReplyTable::new(is_known)),
            refunds: Arc::new(ReplyTable::new(|_| true)),
            notifications: Arc::new(ReplyTable::new(is_final)),
        }
    }
}

/// Whether this version knows the outcome. An unknown outcome is not final: the request to billing
/// is repeated.
fn is_known(decided: &Decided) -> bool {
    decided.outcome != Outcome::Unknown
}

/// Whether notify no longer tries to deliver the message.
pub(super) fn is_final(changed: &NotificationChanged) -> bool {
    match changed.state {
        NotificationState::Sent | NotificationState::Undeliverable | NotificationState::DeadLettered => true,
        NotificationState::Delivering | NotificationState::Unknown => false,
    }
}
