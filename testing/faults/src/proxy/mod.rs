//! What stands between the parts: passes everything on, reports each effect and
//! does to it what the switchboard says.

pub mod http;
pub mod mail;
pub mod nats;
pub mod postgres;

use std::{
    future::Future,
    sync::{Arc, OnceLock},
};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    actors::Actors,
    effect::{Channel, Part},
    fault::Fault,
    switchboard::Switchboard,
};

/// One side of a connection between two parts, as its proxy sees it.
#[derive(Clone, Debug)]
pub struct Door {
    /// Between whom.
    pub channel: Channel,
    /// Whose connections come in here.
    pub by: Part,
    /// What to report to.
    pub board: Arc<Switchboard>,
    /// What faults happen to; set once they run.
    pub actors: Arc<OnceLock<Actors>>,
}

impl Door {
    /// Does the part of a fault that happens before the effect does, if any.
    /// `Some` if the effect is not to happen at all.
    async fn before(&self, fault: Option<Fault>) -> Option<Refusal> {
        match fault? {
            Fault::KillBefore => {
                self.crash().await;
                Some(Refusal::Cut)
            }
            Fault::CutBefore => Some(Refusal::Cut),
            Fault::Answer(code) => Some(Refusal::Answer(code)),
            Fault::Late => {
                tokio::time::sleep(Fault::patience(self.channel)).await;
                None
            }
            Fault::SupersededBefore => {
                self.supersede().await;
                None
            }
            Fault::KillAfter | Fault::LoseReply | Fault::SupersededAfter | Fault::TerminateSession | Fault::CrashDatabase => None,
        }
    }

    /// Does the part of a fault that happens after the effect did. Whether the actor gets its reply.
    async fn after(&self, fault: Option<Fault>) -> bool {
        match fault {
            Some(Fault::KillAfter) => self.crash().await,
            Some(Fault::LoseReply) => {}
            Some(Fault::SupersededAfter) => {
                self.supersede().await;
                return true;
            }
            _ => return true,
        }
        false
    }

    async fn crash(&self) {
        if let Some(actors) = self.actors.get()
            && let Err(error) = actors.crash(self.by).await
        {
            eprintln!("{:?} was not started again: {error:#}", self.by);
        }
    }

    async fn supersede(&self) {
        if let Some(actors) = self.actors.get()
            && let Err(error) = actors.supersede(self.by).await
        {
            eprintln!("{:?} was not superseded: {error:#}", self.by);
            self.board.misfired();
        }
    }
}

/// Why an effect does not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The connection breaks.
    Cut,
    /// It is answered with this code.
    Answer(u16),
}

/// Listens on a free port of this machine and serves each connection. Returns the port.
async fn listen<F, Fut>(serve: F) -> Result<u16>
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            // How a connection ends is the business of its two sides.
            tokio::spawn(serve(stream));
        }
    });
    Ok(port)
}
