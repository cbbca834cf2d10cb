//! A real SMTP server for tests, which can read the messages that it receives.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::process::{Process, Signal, binary};
use crate::wait::{WAIT_TIMEOUT, free_port};

/// A message as the server received it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// A sequence number, from 1 in the order of arrival.
    pub id: u64,
    /// The time of arrival, in seconds since 1970.
    pub received_at: u64,
    /// The header `Message-ID`, without angle brackets.
    pub message_id: String,
    /// The header `From`: the address without the name.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// The decoded subject.
    pub subject: String,
    /// The decoded plain-text body.
    pub text: String,
    /// The complete message as received.
    pub raw: String,
}

/// An SMTP server on loopback, which starts with an empty inbox. It stops when dropped.
///
/// It runs the program `orders-inbox`, which the chart can also install.
#[derive(Debug)]
pub struct Inbox {
    process: Option<Process>,
    smtp_port: u16,
    http_port: u16,
    log_directory: PathBuf,
    credentials: Option<&'static str>,
    http: reqwest::Client,
}

impl Inbox {
    /// Starts a server that writes its log below `directory`.
    ///
    /// # Errors
    /// If `orders-inbox` is not built or does not start.
    pub async fn start(directory: &Path) -> Result<Self> {
        Self::start_with(directory, None).await
    }

    /// Starts a server that accepts mail only from clients that log in as `user:password`.
    ///
    /// # Errors
    /// If `orders-inbox` is not built or does not start.
    pub async fn start_with_login(directory: &Path, credentials: &'static str) -> Result<Self> {
        Self::start_with(directory, Some(credentials)).await
    }

    async fn start_with(directory: &Path, credentials: Option<&'static str>) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(WAIT_TIMEOUT).build()?;
        let mut inbox = Self {
            process: None,
            smtp_port: free_port(),
            http_port: free_port(),
            log_directory: directory.to_owned(),
            credentials,
            http,
        };
        inbox.restart().await?;
        Ok(inbox)
    }

    /// Restarts the server on the same ports, with an empty inbox.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop()?;
        let builder = Process::builder("inbox", binary("orders-inbox")?, &self.log_directory)
            .args(["--ip", "127.0.0.1"])
            .args(["--smtp-port", &self.smtp_port.to_string()])
            .args(["--http-port", &self.http_port.to_string()])
            .args(["--messages-limit", "100000"]);
        let process = match self.credentials {
            Some(credentials) => builder.args(["--credentials", credentials]),
            None => builder,
        }
        .spawn()?;
        process.wait_http(&format!("http://127.0.0.1:{}/healthz", self.http_port), WAIT_TIMEOUT).await?;
        self.process = Some(process);
        Ok(())
    }

    /// The URL at which the server accepts mail, for `SMTP_URL`, with the credentials if there are any.
    pub fn smtp_url(&self) -> String {
        let login = self.credentials.map(|credentials| format!("{credentials}@")).unwrap_or_default();
        format!("smtp://{login}127.0.0.1:{}", self.smtp_port)
    }

    /// The base URL of the web page and the API.
    pub fn http_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// Returns all messages, in the order of arrival.
    ///
    /// # Errors
    /// If the server does not respond.
    pub async fn messages(&self) -> Result<Vec<Message>> {
        let response = self.http.get(format!("{}/api/messages", self.http_url())).send().await?;
        Ok(response.error_for_status()?.json().await?)
    }

    /// Returns the messages to one recipient.
    ///
    /// # Errors
    /// If the server does not respond.
    pub async fn messages_to(&self, address: &str) -> Result<Vec<Message>> {
        let mut messages = self.messages().await?;
        messages.retain(|message| message.to.iter().any(|to| to == address));
        Ok(messages)
    }

    /// Empties the inbox.
    ///
    /// # Errors
    /// If the server does not respond.
    pub async fn clear(&self) -> Result<()> {
        self.http.delete(format!("{}/api/messages", self.http_url())).send().await?.error_for_status()?;
        Ok(())
    }

    /// Kills the server. No process listens on its ports afterwards.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Suspends the server: it accepts connections, but does not respond.
    ///
    /// # Errors
    /// If it is stopped.
    pub fn suspend(&self) -> Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    /// Resumes a suspended server.
    ///
    /// # Errors
    /// If it is stopped.
    pub fn resume(&self) -> Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("the inbox is stopped")
    }
}
