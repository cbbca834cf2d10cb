//! The connection to the broker. It is established in the background and re-established when it
//! breaks.

use std::time::Duration;

use async_nats::{ConnectOptions, Event, jetstream};
use clap::Args;
use orders_contracts::topology::{Service, Stream};
use secrecy::{ExposeSecret, SecretString};
use strum::IntoEnumIterator;

use super::streams::stream_config;

/// How long a call to the broker may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum delay between two attempts to connect.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Command-line arguments for the broker. A binary includes them with `#[command(flatten)]`.
#[derive(Args, Clone, Debug)]
pub struct BrokerArgs {
    /// URL of the broker, such as nats://orders-nats:4222 or tls://nats.example.com. If not set, no
    /// broker is used.
    #[arg(long, env = "NATS_URL")]
    pub nats_url: Option<String>,

    /// Password of this service's user at the broker.
    #[arg(long, env = "NATS_PASSWORD", hide_env_values = true)]
    pub nats_password: Option<SecretString>,
}

/// A service's connection to the broker.
#[derive(Clone, Debug)]
pub struct Broker {
    pub(crate) jetstream: jetstream::Context,
    pub(crate) service: Service,
}

impl BrokerArgs {
    /// Connects, if a broker is configured.
    ///
    /// # Errors
    /// If the URL cannot be parsed. A broker that does not respond is not an error: the connection
    /// is established once the broker responds.
    pub async fn connect(&self, service: Service) -> anyhow::Result<Option<Broker>> {
        match &self.nats_url {
            Some(url) => Broker::connect(url, self.nats_password.as_ref(), service).await.map(Some),
            None => Ok(None),
        }
    }
}

impl Broker {
    /// Connects as the user of this service.
    ///
    /// # Errors
    /// As [`BrokerArgs::connect`].
    pub async fn connect(url: &str, password: Option<&SecretString>, service: Service) -> anyhow::Result<Self> {
        let user = service.name();
        let client = options(user, password)
            .retry_on_initial_connect()
            .connect(url)
            .await
            .map_err(|error| anyhow::anyhow!("NATS_URL={url}: {error}"))?;
        let jetstream = jetstream::ContextBuilder::new().timeout(CALL_TIMEOUT).ack_timeout(CALL_TIMEOUT).build(client);
        Ok(Broker { jetstream, service })
    }

    /// Creates the streams that do not exist. Adds missing subjects to the streams that an earlier
    /// version created. The other settings of existing streams belong to the broker's
    /// administrator.
    ///
    /// # Errors
    /// If the broker does not respond, or refuses the request.
    pub(crate) async fn ensure_streams(&self) -> Result<(), String> {
        for stream in Stream::iter() {
            let describe = |error: &dyn std::fmt::Display| format!("stream {}: {error}", stream.name());
            let existing = self.jetstream.get_or_create_stream(stream_config(stream)).await.map_err(|error| describe(&error))?;
            let mut config = existing.cached_info().config.clone();
            let missing: Vec<String> =
                stream_config(stream).subjects.into_iter().filter(|subject| !config.subjects.contains(subject)).collect();
            if !missing.is_empty() {
                config.subjects.extend(missing);
                self.jetstream.update_stream(config).await.map_err(|error| describe(&error))?;
            }
        }
        Ok(())
    }
}

/// The options that all connections have in common. A user may subscribe only to its own replies.
pub(crate) fn options(user: &str, password: Option<&SecretString>) -> ConnectOptions {
    let password = password.map_or("", |password| password.expose_secret());
    ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        .custom_inbox_prefix(format!("_INBOX.{user}"))
        .name(format!("orders-{user}"))
        .connection_timeout(CALL_TIMEOUT)
        // Detects within ten seconds that a connected broker no longer responds.
        .ping_interval(Duration::from_secs(5))
        .reconnect_delay_callback(|attempts| RECONNECT_DELAY.min(Duration::from_millis(50 * attempts as u64)))
        .event_callback(|event| async move {
            match event {
                Event::Connected => tracing::info!("connected to the broker"),
                Event::Disconnected => tracing::warn!("disconnected from the broker; reconnecting"),
                event => tracing::warn!(%event, "event of the broker connection"),
            }
        })
}
