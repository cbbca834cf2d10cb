//! A proxy to a service that loses responses after the service has
//! processed the request.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

/// A proxy that forwards connections and loses a given number of responses.
#[derive(Clone, Default)]
pub struct LossyProxy {
    target: Arc<OnceLock<String>>,
    remaining_losses: Arc<AtomicUsize>,
}

impl LossyProxy {
    /// Listens on a free port of this machine. Returns the proxy and the port.
    pub async fn listen() -> Result<(Self, u16)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let proxy = LossyProxy::default();
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let proxy = accepting.clone();
                // The task ends when either side closes the connection.
                tokio::spawn(async move { proxy.forward(client).await });
            }
        });
        Ok((proxy, port))
    }

    /// Sets the URL to which connections are forwarded, such as `http://127.0.0.1:8080`.
    pub fn set_target(&self, url: &str) {
        self.target.get_or_init(|| url.trim_start_matches("http://").to_owned());
    }

    /// Loses the next responses, up to this number.
    pub fn lose_next(&self, responses: usize) {
        self.remaining_losses.store(responses, Ordering::SeqCst);
    }

    /// The number of responses that are still to be lost.
    pub fn remaining_losses(&self) -> usize {
        self.remaining_losses.load(Ordering::SeqCst)
    }

    async fn forward(&self, client: TcpStream) -> Result<()> {
        let Some(target) = self.target.get() else { return Ok(()) };
        let (mut from_service, mut to_service) = TcpStream::connect(target).await?.into_split();
        let (mut from_client, mut to_client) = client.into_split();
        let requests = async { copy(&mut from_client, &mut to_service).await.map(drop) };
        let responses = async {
            let mut response = vec![0; 64 * 1024];
            loop {
                // A response of these services arrives in one read.
                let length = from_service.read(&mut response).await?;
                let decrement = |remaining: usize| remaining.checked_sub(1);
                if length == 0 || self.remaining_losses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, decrement).is_ok() {
                    return Ok(());
                }
                to_client.write_all(&response[..length]).await?;
            }
        };
        tokio::select! { result = requests => Ok(result?), result = responses => result }
    }
}
