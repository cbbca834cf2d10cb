//! Sends messages to one mail server over SMTP (RFC 5321).

mod conversation;
mod error;
mod pool;
mod server;
mod timeouts;

pub use error::{Phase, SmtpError};
pub use pool::MailServer;
pub use timeouts::SmtpTimeouts;
