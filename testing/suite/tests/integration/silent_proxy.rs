//! A proxy to the Kubernetes API whose connections can go silent, as when a firewall forgets them: packets are dropped,
//! and neither side learns of it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};
use orders_testbed::Cluster;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A proxy that forwards connections until they are silenced.
pub struct SilentProxy {
    silenced: watch::Sender<()>,
    opened: Arc<AtomicUsize>,
    /// A kubeconfig with which clients connect through this proxy.
    pub kubeconfig: PathBuf,
}

impl SilentProxy {
    /// Listens on a free port of this machine, and forwards to the API server of the cluster. The kubeconfig is
    /// written to `directory`.
    pub async fn start(cluster: &Cluster, directory: &Path) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let text = std::fs::read_to_string(&cluster.kubeconfig)?;
        let (_, rest) = text.split_once("https://127.0.0.1:").context("the API server is on 127.0.0.1")?;
        let target: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let kubeconfig = directory.join("silent-proxy.kubeconfig");
        std::fs::write(&kubeconfig, text.replace(&format!("127.0.0.1:{target}"), &format!("127.0.0.1:{port}")))?;

        let (silenced, opened) = (watch::Sender::new(()), Arc::<AtomicUsize>::default());
        let (subscriptions, counter) = (silenced.clone(), opened.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(forward(client, format!("127.0.0.1:{target}"), subscriptions.subscribe()));
            }
        });
        Ok(SilentProxy { silenced, opened, kubeconfig })
    }

    /// Silences all connections that are open now. New ones work.
    pub fn silence(&self) {
        self.silenced.send_replace(());
    }

    /// The number of connections that were opened so far.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

async fn forward(mut client: TcpStream, target: String, mut silenced: watch::Receiver<()>) -> Result<()> {
    let mut server = TcpStream::connect(target).await?;
    tokio::select! {
        result = copy_bidirectional(&mut client, &mut server) => drop(result?),
        _ = silenced.changed() => std::future::pending().await,
    }
    Ok(())
}
