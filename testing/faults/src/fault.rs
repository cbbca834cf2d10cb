//! The faults that an effect can meet.

use std::{fmt, time::Duration};

use crate::effect::{Channel, Effect, Server};

/// What goes wrong at an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// The actor is killed (SIGKILL) when it is about to take effect, and started again.
    KillBefore,
    /// It takes effect; the actor is killed before it learns of it, and started again.
    KillAfter,
    /// The connection breaks before it takes effect.
    CutBefore,
    /// It takes effect; the connection breaks before the reply.
    LoseReply,
    /// The request hangs until the actor gave up, and takes effect then.
    Late,
    /// It is refused with this code: an HTTP status, or one of SMTP.
    Answer(u16),
    /// The leading operator stops (SIGSTOP) before it, another takes over, then it goes on.
    SupersededBefore,
    /// The same, after it took effect and before the leader learns of it.
    SupersededAfter,
    /// The database ends the session (pg_terminate_backend).
    TerminateSession,
    /// The database's process for the session is killed (SIGKILL): the server recovers from its log.
    CrashDatabase,
}

/// The faults of HTTP requests.
const HTTP: &[Fault] = &[
    Fault::KillBefore,
    Fault::KillAfter,
    Fault::CutBefore,
    Fault::LoseReply,
    Fault::Late,
    Fault::Answer(409),
    Fault::Answer(429),
    Fault::Answer(500),
    Fault::Answer(503),
];

/// The faults of PostgreSQL statements.
const DATABASE: &[Fault] = &[
    Fault::KillBefore,
    Fault::KillAfter,
    Fault::CutBefore,
    Fault::LoseReply,
    Fault::Late,
    Fault::TerminateSession,
    Fault::CrashDatabase,
];

/// The faults of what is said to the broker.
const BROKER: &[Fault] = &[Fault::KillBefore, Fault::KillAfter, Fault::CutBefore, Fault::LoseReply, Fault::Late];

/// The faults of SMTP commands.
const MAIL: &[Fault] = &[
    Fault::KillBefore,
    Fault::KillAfter,
    Fault::CutBefore,
    Fault::LoseReply,
    Fault::Late,
    Fault::Answer(421),
    Fault::Answer(451),
    Fault::Answer(554),
];

impl Fault {
    /// The faults that this effect can meet.
    pub fn of(effect: &Effect) -> impl Iterator<Item = Fault> {
        let common = match effect.channel.server() {
            Server::Database => DATABASE,
            Server::Broker => BROKER,
            Server::Mail => MAIL,
            Server::Kube | Server::Billing | Server::Notify | Server::Archive => HTTP,
        };
        let by_operator = matches!(
            effect.channel,
            Channel::OperatorToKube
                | Channel::OperatorToBilling
                | Channel::OperatorToNotify
                | Channel::OperatorToArchive
                | Channel::OperatorToBroker
        );
        let two_leaders: &[Fault] = if by_operator { &[Fault::SupersededBefore, Fault::SupersededAfter] } else { &[] };
        common.iter().chain(two_leaders).copied()
    }

    /// How long a request over this channel has to hang until the actor gave up:
    /// a second more than its time limit.
    pub const fn patience(channel: Channel) -> Duration {
        let seconds = match channel {
            Channel::ApiServerToKube | Channel::ApiServerToArchive => 4,
            Channel::ApiServerToBilling
            | Channel::OperatorToBilling
            | Channel::OperatorToBroker
            | Channel::BillingToBroker
            | Channel::NotifyToBroker => 6,
            Channel::OperatorToNotify => 2,
            Channel::BillingToDatabase | Channel::NotifyToDatabase | Channel::ArchiveToDatabase => 9,
            Channel::OperatorToKube | Channel::OperatorToArchive | Channel::NotifyToMail => 11,
        };
        Duration::from_secs(seconds)
    }

    /// Whether it takes seconds, as somebody has to give up or to take over.
    pub const fn is_slow(self) -> bool {
        matches!(self, Fault::Late | Fault::SupersededBefore | Fault::SupersededAfter)
    }

    /// Reads a name back.
    pub fn parse(text: &str) -> Option<Fault> {
        let all = HTTP.iter().chain(DATABASE).chain(MAIL).chain(&[Fault::SupersededBefore, Fault::SupersededAfter]);
        all.copied().find(|fault| fault.to_string() == text)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Fault::KillBefore => "kill-before",
            Fault::KillAfter => "kill-after",
            Fault::CutBefore => "cut-before",
            Fault::LoseReply => "lose-reply",
            Fault::Late => "late",
            Fault::Answer(code) => return f.pad(&format!("answer-{code}")),
            Fault::SupersededBefore => "superseded-before",
            Fault::SupersededAfter => "superseded-after",
            Fault::TerminateSession => "terminate-session",
            Fault::CrashDatabase => "crash-database",
        };
        f.pad(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for channel in [Channel::OperatorToKube, Channel::BillingToDatabase, Channel::NotifyToMail] {
            let effect = Effect { channel, operation: String::new(), occurrence: 1 };
            for fault in Fault::of(&effect) {
                assert_eq!(Fault::parse(&fault.to_string()), Some(fault));
            }
        }
    }
}
