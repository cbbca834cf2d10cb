//! Finds the orders that changed between two polls.

use std::collections::HashMap;

use serde_json::Value;

use crate::order::Order;

/// The orders as they were printed last.
#[derive(Debug, Default)]
pub struct Seen {
    orders: HashMap<String, Value>,
}

impl Seen {
    /// Returns the orders that are new or changed, and remembers them. An order that is missing now
    /// is not a change: the limit of the list may exclude it.
    pub fn changed(&mut self, orders: Vec<Order>) -> Vec<Order> {
        let is_news = |order: &Order| {
            let before = self.orders.insert(order.name.clone(), order.whole.clone());
            before.is_none_or(|before| before != order.whole)
        };
        orders.into_iter().filter(is_news).collect()
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
    fn only_what_is_new_or_changed_is_told_once() {
        let (mut seen, first) = (Seen::default(), order(json!({"name": "order-1", "reason": "Processing"})));
        let (paid, second) = (order(json!({"name": "order-1"})), order(json!({"name": "order-2"})));
        assert_eq!(names(&seen.changed(vec![first.clone()])), ["order-1"]);
        assert_eq!(names(&seen.changed(vec![first])), [] as [&str; 0]);
        assert_eq!(names(&seen.changed(vec![second.clone(), paid.clone()])), ["order-2", "order-1"]);
        assert_eq!(names(&seen.changed(vec![second, paid])), [] as [&str; 0]);
    }
}
