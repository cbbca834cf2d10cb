//! The tests of orders as a whole. `integration` runs the services as processes with a real
//! Kubernetes API; `end_to_end` installs the chart on a real node. This library is empty.
