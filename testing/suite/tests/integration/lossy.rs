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
pub struct Lossy {
    target: Arc<OnceLock<String>>,
    to_lose: Arc<AtomicUsize>,
}

impl Lossy {
    /// Listens on a free port of this machine. Returns the proxy and the port.
    pub async fn listen() -> Result<(Self, u16)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let lossy = Lossy::default();
        let accepting = lossy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let lossy = accepting.clone();
                // The task ends when either side closes the connection.
                tokio::spawn(async move { lossy.pass_on(client).await });
            }
        });
        Ok((lossy, port))
    }

    /// Sets the URL to which connections are forwarded, such as `http://127.0.0.1:8080`.
    pub fn lead_to(&self, url: &str) {
        self.target.get_or_init(|| url.trim_start_matches("http://").to_owned());
    }

    /// Loses the next responses, up to this number.
    pub fn lose(&self, answers: usize) {
        self.to_lose.store(answers, Ordering::SeqCst);
    }

    /// The number of responses that are still to be lost.
    pub fn left_to_lose(&self) -> usize {
        self.to_lose.load(Ordering::SeqCst)
    }

    async fn pass_on(&self, client: TcpStream) -> Result<()> {
        let Some(target) = self.target.get() else { return Ok(()) };
        let (mut from_service, mut to_service) = TcpStream::connect(target).await?.into_split();
        let (mut from_client, mut to_client) = client.into_split();
        let requests = async { copy(&mut from_client, &mut to_service).await.map(drop) };
        let answers = async {
            let mut answer = vec![0; 64 * 1024];
            loop {
                // A response of these services arrives in one read.
                let length = from_service.read(&mut answer).await?;
                let lose = |left: usize| left.checked_sub(1);
                if length == 0 || self.to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
                    return Ok(());
                }
                to_client.write_all(&answer[..length]).await?;
            }
        };
        tokio::select! { result = requests => Ok(result?), result = answers => result }
    }
}
