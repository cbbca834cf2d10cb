//! The operator: the life of an `Order`.
//!
//! [`decide`] says what an order needs next, without any I/O; [`carry_out`] does
//! it through [`clients`]; [`status`] turns what came back into conditions;
//! [`controller`] writes them, once, last; [`queue`] says whose turn it is.
//! [`customers`] sees to the accounts of `Customer`s.

#![deny(missing_docs)]

pub mod carry_out;
pub mod clients;
pub mod config;
pub mod controller;
pub mod customers;
pub mod decide;
pub mod deletion;
pub mod events;
pub mod guarded;
pub mod interaction;
pub mod late;
pub mod leader;
pub mod purchase;
pub mod queue;
pub mod retention;
#[cfg(debug_assertions)]
pub mod seeded_bugs;
pub mod status;
pub mod wanted;
pub mod watched;
