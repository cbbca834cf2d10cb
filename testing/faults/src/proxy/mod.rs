//! The proxies between the components. They forward all traffic, report each effect to the
//! switchboard, and inject the fault that the switchboard returns.

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

/// The client's side of a proxy: its channel and its component.
#[derive(Clone, Debug)]
pub struct Door {
    /// The channel of the proxy.
    pub channel: Channel,
    /// The component that connects to the proxy.
    pub by: Part,
    /// The switchboard to which effects are reported.
    pub board: Arc<Switchboard>,
    /// The processes into which faults are injected; set as soon as they run.
    pub actors: Arc<OnceLock<Actors>>,
}

impl Door {
    /// Injects the part of a fault that precedes the effect, if any.
    /// Returns `Some` if the effect must not take place.
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

    /// Injects the part of a fault that follows the effect. Returns whether the actor gets its reply.
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

/// The reason why an effect does not take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The connection breaks.
    Cut,
    /// The request is refused with this code.
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
            // Both ends handle the end of a connection themselves.
            tokio::spawn(serve(stream));
        }
    });
    Ok(port)
}
