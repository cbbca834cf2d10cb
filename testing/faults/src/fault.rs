//! The faults that can be injected at an effect.

use std::{fmt, time::Duration};

use crate::effect::{Channel, Effect, Server};

/// A fault at an effect. The actor is the component that causes the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// The actor is killed (SIGKILL) before the effect takes place, and restarted.
    KillBefore,
    /// The effect takes place. The actor is killed before it receives the reply, and restarted.
    KillAfter,
    /// The connection breaks before the effect takes place.
    CutBefore,
    /// The effect takes place. The connection breaks before the reply.
    LoseReply,
    /// The request hangs until the actor gives up. Then the effect takes place.
    Late,
    /// The request is refused with this code: an HTTP status, or an SMTP reply code.
    Answer(u16),
    /// The leader is suspended (SIGSTOP) before the effect takes place. It resumes after another operator has become the leader.
    SupersededBefore,
    /// The effect takes place. The leader is suspended before it receives the reply, and resumes after another operator has
    /// become the leader.
    SupersededAfter,
    /// The database terminates the session (pg_terminate_backend).
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

/// The faults of messages to the broker.
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
    /// The faults that can be injected at this effect.
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

    /// The time for which a request over this channel must hang until the actor gives up:
    /// one second longer than the actor's time limit.
    pub const fn delay_of_late(channel: Channel) -> Duration {
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

    /// Whether the fault takes seconds, because a component has to give up or another leader has to take over.
    pub const fn is_slow(self) -> bool {
        matches!(self, Fault::Late | Fault::SupersededBefore | Fault::SupersededAfter)
    }

    /// Parses the name of a fault.
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
    fn names_are_parsed() {
        for channel in [Channel::OperatorToKube, Channel::BillingToDatabase, Channel::NotifyToMail] {
            let effect = Effect { channel, operation: String::new(), occurrence: 1 };
            for fault in Fault::of(&effect) {
                assert_eq!(Fault::parse(&fault.to_string()), Some(fault));
            }
        }
    }
}
