//! Integration tests: the services run as processes with a real API server, real databases and a
//! real mail server. The tests check the behavior that a user can observe.

mod archive;
mod audit;
mod authorization;
mod bad_input;
mod broker;
mod browsers;
mod charges;
mod concurrency;
mod contract;
mod cost;
mod customers;
mod databases;
mod idempotency;
mod kubectl_orders;
mod life;
mod lossy_proxy;
mod names;
mod outages;
mod raw;
mod refusals;
mod resource;
mod scale;
mod servers;
mod settlement;
mod shop;
mod silent_proxy;
mod silent_watch;
mod two_releases;
mod version_skew;
