//! Many orders, on a control plane of their own: nothing is lost, nothing is done
//! twice, and nothing grows that ought not to.
//!
//! Run by `make test-integration`, after everything else and one test at a time:
//! what they assert of time needs a machine that does nothing beside.

mod etcd;
mod load;
mod overtaking;
mod passing_through;
// The shop of the integration tests; not all that it offers is used here.
#[allow(dead_code)]
#[path = "../integration/shop.rs"]
mod shop;
mod takeover;
