//! The services as processes, on a real API server, with real databases and a
//! real mail server: what a user would notice.

mod contract;
mod shop;
