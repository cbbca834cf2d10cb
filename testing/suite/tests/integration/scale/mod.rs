//! Many orders, on a control plane of their own: nothing is lost, nothing is done
//! twice, and nothing grows that ought not to.
//!
//! Run by `make test-scale`, one test at a time: what they assert of time needs a
//! machine that does nothing beside.

mod etcd;
mod load;
mod overtaking;
mod passing_through;
mod takeover;
