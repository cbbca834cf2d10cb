//! The effects of a run: what one part does to another, numbered.

use std::fmt;

/// A process that acts and may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The public API.
    ApiServer,
    /// An operator, by its number.
    Operator(usize),
    /// The billing service.
    Billing,
    /// The notify service.
    Notify,
    /// The archive.
    Archive,
}

/// From which part to which an effect goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Channel {
    /// The public API creates orders.
    ApiServerToKube,
    /// The public API passes on registrations and refills.
    ApiServerToBilling,
    /// The public API asks for archived orders.
    ApiServerToArchive,
    /// The operator writes status and events.
    OperatorToKube,
    /// The operator charges.
    OperatorToBilling,
    /// The operator has customers told.
    OperatorToNotify,
    /// The operator has finished orders kept.
    OperatorToArchive,
    /// The operator asks, tells and acknowledges.
    OperatorToBroker,
    /// Billing tells and acknowledges.
    BillingToBroker,
    /// Notify tells and acknowledges.
    NotifyToBroker,
    /// Billing keeps its books.
    BillingToDatabase,
    /// Notify keeps its messages.
    NotifyToDatabase,
    /// The archive keeps its orders.
    ArchiveToDatabase,
    /// Notify delivers.
    NotifyToMail,
}

/// The server at the far end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// kube-apiserver.
    Kube,
    /// The billing service.
    Billing,
    /// The notify service.
    Notify,
    /// The archive.
    Archive,
    /// NATS.
    Broker,
    /// PostgreSQL.
    Database,
    /// The mail server.
    Mail,
}

impl Channel {
    /// The server at its far end.
    pub const fn server(self) -> Server {
        match self {
            Channel::ApiServerToKube | Channel::OperatorToKube => Server::Kube,
            Channel::ApiServerToBilling | Channel::OperatorToBilling => Server::Billing,
            Channel::OperatorToNotify => Server::Notify,
            Channel::ApiServerToArchive | Channel::OperatorToArchive => Server::Archive,
            Channel::OperatorToBroker | Channel::BillingToBroker | Channel::NotifyToBroker => Server::Broker,
            Channel::BillingToDatabase | Channel::NotifyToDatabase | Channel::ArchiveToDatabase => Server::Database,
            Channel::NotifyToMail => Server::Mail,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Channel::ApiServerToKube => "api-server>kube",
            Channel::ApiServerToBilling => "api-server>billing",
            Channel::ApiServerToArchive => "api-server>archive",
            Channel::OperatorToKube => "operator>kube",
            Channel::OperatorToBilling => "operator>billing",
            Channel::OperatorToNotify => "operator>notify",
            Channel::OperatorToArchive => "operator>archive",
            Channel::OperatorToBroker => "operator>broker",
            Channel::BillingToBroker => "billing>broker",
            Channel::NotifyToBroker => "notify>broker",
            Channel::BillingToDatabase => "billing>database",
            Channel::NotifyToDatabase => "notify>database",
            Channel::ArchiveToDatabase => "archive>database",
            Channel::NotifyToMail => "notify>mail",
        }
    }
}

/// One effect: the n-th time that this is done over this channel. Equal in every
/// run of the same workload up to the fault.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Effect {
    /// Between whom.
    pub channel: Channel,
    /// What is done, such as `POST orders` or `COMMIT`.
    pub operation: String,
    /// Counted from 1.
    pub occurrence: u32,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} #{}", self.channel, self.operation, self.occurrence)
    }
}
