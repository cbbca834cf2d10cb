//! Finds the orders that changed between two polls.

use std::collections::HashMap;

use serde_json::Value;

use crate::order::Order;

/// Finds changes by a comparison with the orders of the previous poll.
#[derive(Debug, Default)]
pub struct ChangeTracker {
    orders: HashMap<String, Value>,
}

impl ChangeTracker {
    /// Returns the orders that are new or changed, and remembers them. An order that is missing now
    /// is not a change: the limit of the list may exclude it.
    pub fn take_changed(&mut self, orders: Vec<Order>) -> Vec<Order> {
        let is_changed = |order: &Order| {
            let before = self.orders.insert(order.name.clone(), order.json.clone());
            before.is_none_or(|before| before != order.json)
        };
        orders.into_iter().filter(is_changed).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::order::tests::order;

    fn names(orders: &[Order]) -> Vec<&str> {
        orders.iter().map(|order| &*order.name).collect()
    }

    #[test]
    fn only_new_and_changed_orders_are_returned_and_each_once() {
        let (mut tracker, first) = (ChangeTracker::default(), order(json!({"name": "order-1", "reason": "Processing"})));
        let (paid, second) = (order(json!({"name": "order-1"})), order(json!({"name": "order-2"})));
        assert_eq!(names(&tracker.take_changed(vec![first.clone()])), ["order-1"]);
        assert_eq!(names(&tracker.take_changed(vec![first])), [] as [&str; 0]);
        assert_eq!(names(&tracker.take_changed(vec![second.clone(), paid.clone()])), ["order-2", "order-1"]);
        assert_eq!(names(&tracker.take_changed(vec![second, paid])), [] as [&str; 0]);
    }
}
