//! The services as processes, on a real API server, with real databases and a
//! real mail server: what a user would notice.

mod archive;
mod audit;
mod bad_input;
mod broker;
mod callers;
mod charges;
mod contract;
mod cost;
mod crowd;
mod customers;
mod idempotency;
mod kubectl_orders;
mod life;
mod lossy;
mod outages;
mod raw;
mod resource;
mod scale;
mod servers;
mod shop;
mod unknown;
