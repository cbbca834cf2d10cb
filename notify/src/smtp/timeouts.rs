//! The time limits of an SMTP conversation.

use std::time::Duration;

/// The time limits of the phases of an SMTP conversation. The defaults are the minimums of RFC 5321,
/// section 4.5.3.2: a mail server may delay its greeting to deter spam, and may filter the content of a
/// message before it replies.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct SmtpTimeouts {
    /// Seconds to open a TCP connection, and the TLS session of smtps.
    #[arg(id = "smtp_connect_timeout", long = "smtp-connect-timeout-seconds", env = "SMTP_CONNECT_TIMEOUT_SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub connect: Duration,

    /// Seconds to wait for the mail server's greeting and its reply to EHLO.
    #[arg(id = "smtp_greeting_timeout", long = "smtp-greeting-timeout-seconds", env = "SMTP_GREETING_TIMEOUT_SECONDS", default_value = "300", value_parser = parse_seconds)]
    pub greeting: Duration,

    /// Seconds to wait for the reply to STARTTLS, AUTH, MAIL or RCPT.
    #[arg(id = "smtp_command_timeout", long = "smtp-command-timeout-seconds", env = "SMTP_COMMAND_TIMEOUT_SECONDS", default_value = "300", value_parser = parse_seconds)]
    pub command: Duration,

    /// Seconds to wait for the reply to DATA.
    #[arg(id = "smtp_data_timeout", long = "smtp-data-timeout-seconds", env = "SMTP_DATA_TIMEOUT_SECONDS", default_value = "120", value_parser = parse_seconds)]
    pub data: Duration,

    /// Seconds to transfer a message, and to wait until the mail server accepts it.
    #[arg(id = "smtp_transfer_timeout", long = "smtp-transfer-timeout-seconds", env = "SMTP_TRANSFER_TIMEOUT_SECONDS", default_value = "600", value_parser = parse_seconds)]
    pub transfer: Duration,
}

impl SmtpTimeouts {
    /// The same limit for each phase.
    pub const fn uniform(limit: Duration) -> Self {
        SmtpTimeouts { connect: limit, greeting: limit, command: limit, data: limit, transfer: limit }
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "must be between 1 and 3600".to_owned())
}
