//! The tests of orders as a whole: `integration` with the services as processes against a real
//! Kubernetes API, `end_to_end` with the chart on a real node. This library is empty.
