//! The proxies between the components. They forward all traffic, report each effect to the
//! switchboard, and inject the fault that the fault injector returns.

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
    effect::{Channel, Component},
    fault::Fault,
    fault_injector::FaultInjector,
};

/// The part of a proxy that injects faults before and after an effect.
#[derive(Clone, Debug)]
pub struct Interceptor {
    /// The channel of the proxy.
    pub channel: Channel,
    /// The component that connects to the proxy.
    pub component: Component,
    /// The fault injector to which effects are reported.
    pub injector: Arc<FaultInjector>,
    /// The processes into which faults are injected; set as soon as they run.
    pub actors: Arc<OnceLock<Actors>>,
}

impl Interceptor {
    /// Injects the part of a fault that precedes the effect, if any.
    /// Returns `Some` if the effect must not take place.
    async fn inject_before(&self, fault: Option<Fault>) -> Option<Interruption> {
        match fault? {
            Fault::KillBefore => {
                self.crash().await;
                Some(Interruption::Disconnect)
            }
            Fault::CutBefore => Some(Interruption::Disconnect),
            Fault::Answer(code) => Some(Interruption::Reply(code)),
            Fault::Late => {
                tokio::time::sleep(Fault::delay_of_late(self.channel)).await;
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
    async fn inject_after(&self, fault: Option<Fault>) -> bool {
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
            && let Err(error) = actors.crash(self.component).await
        {
            eprintln!("{:?} was not restarted: {error:#}", self.component);
        }
    }

    async fn supersede(&self) {
        if let Some(actors) = self.actors.get()
            && let Err(error) = actors.supersede(self.component).await
        {
            eprintln!("{:?} was not superseded: {error:#}", self.component);
            self.injector.record_failed_injection();
        }
    }
}

/// The reason why an effect does not take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interruption {
    /// The connection breaks.
    Disconnect,
    /// The request is refused with this code.
    Reply(u16),
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
