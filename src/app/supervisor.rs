//! What systemd is told, where it started the server: that the models are loaded and requests are answered, that this is
//! still so (the watchdog), and that the server stops.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::domain::EndpointId;
use crate::http::Pulse;
use crate::queue::{JobQueue, Stop};

/// How often it looks whether the models are loaded.
const LOOK: Duration = Duration::from_millis(200);
/// How long the server may take to answer that it is alive.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server that systemd started as `Type=notify`.
pub(super) struct Supervised {
    /// Where this server answers on this machine.
    address: SocketAddr,
    pulse: Pulse,
    /// The endpoints with workers.
    endpoints: Vec<EndpointId>,
    watchdog: Option<Duration>,
}

impl Supervised {
    /// None: nobody waits to be told.
    pub fn by_systemd(address: SocketAddr, pulse: Pulse, endpoints: Vec<EndpointId>) -> Option<Self> {
        std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())?;
        Some(Self {
            address,
            pulse,
            endpoints,
            watchdog: sd_notify::watchdog_enabled().filter(|time| !time.is_zero()),
        })
    }

    /// Reports until it is asked to stop. Blocks: for a thread of its own.
    pub fn report(&self, queue: &JobQueue, stop: &Stop) {
        while !(queue.have_been_ready(&self.endpoints) && self.is_alive(queue)) {
            if stop.is_stopping() {
                return;
            }
            stop.rest(LOOK);
        }
        tell(&[NotifyState::Ready]);
        let Some(watchdog) = self.watchdog else { return };
        while !stop.is_stopping() {
            // Whoever does not hear from this server in time restarts it.
            if self.is_alive(queue) {
                tell(&[NotifyState::Watchdog]);
            } else {
                tracing::error!("the server does not answer, or a worker is stuck");
            }
            stop.rest(watchdog / 3);
        }
    }

    /// Asks the server over HTTP, as a client would. If clients hold all connections, a restart would not help.
    fn is_alive(&self, queue: &JobQueue) -> bool {
        queue.makes_progress() && self.pulse.is_full_but_alive(self.address.ip()) || self.answers()
    }

    fn answers(&self) -> bool {
        let ask = || -> io::Result<bool> {
            let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut status = [0; b"HTTP/1.1 200".len()];
            stream.read_exact(&mut status)?;
            Ok(&status == b"HTTP/1.1 200")
        };
        ask().unwrap_or(false)
    }
}

/// Says that the server stops.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told how the server is");
    }
}
