//! Tests of notify alone, on both databases and with a real mail server.

mod generated;
mod mail_server;
mod messages;
mod smtp;
