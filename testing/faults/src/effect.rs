//! The effects of a run: the numbered changes that one component makes in another.

use std::fmt;

/// A component of the system: a process that causes effects and can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
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

/// A channel: the component from which an effect comes, and the one in which it takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Channel {
    /// The public API creates orders.
    ApiServerToKube,
    /// The public API forwards registrations and refills.
    ApiServerToBilling,
    /// The public API requests archived orders.
    ApiServerToArchive,
    /// The operator writes status and events.
    OperatorToKube,
    /// The operator requests charges.
    OperatorToBilling,
    /// The operator requests notifications of customers.
    OperatorToNotify,
    /// The operator stores finished orders.
    OperatorToArchive,
    /// The operator publishes and acknowledges messages.
    OperatorToBroker,
    /// Billing publishes and acknowledges messages.
    BillingToBroker,
    /// Notify publishes and acknowledges messages.
    NotifyToBroker,
    /// Billing writes its ledger.
    BillingToDatabase,
    /// Notify writes its message log.
    NotifyToDatabase,
    /// The archive writes orders.
    ArchiveToDatabase,
    /// Notify delivers mail.
    NotifyToMail,
}

/// The server at the receiving end of a channel.
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
    /// The server at the receiving end.
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

/// One effect: the n-th occurrence of an operation on a channel. Up to the fault, the effects are the same in every
/// run of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Effect {
    /// The channel.
    pub channel: Channel,
    /// The operation, such as `POST orders` or `COMMIT`.
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
