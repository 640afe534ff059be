//! The signals that stop the server.

use std::io;
#[cfg(unix)]
use std::pin::pin;

use actix_web::rt;
#[cfg(unix)]
use futures_util::future::{Either, select};

/// Completes at the first SIGTERM or SIGINT. A second signal ends the process at once.
pub(super) fn termination() -> io::Result<impl Future<Output = ()>> {
    let mut signals = Signals::new()?;
    Ok(async move {
        signals.next().await;
        rt::spawn(async move {
            let code = signals.next().await;
            eprintln!("stablehand: stopped at once");
            std::process::exit(code);
        });
    })
}

#[cfg(unix)]
struct Signals {
    terminate: rt::signal::unix::Signal,
    interrupt: rt::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use rt::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal. Returns the exit code that shells use for it.
    async fn next(&mut self) -> i32 {
        match select(pin!(self.terminate.recv()), pin!(self.interrupt.recv())).await {
            Either::Left(_) => 128 + 15,
            Either::Right(_) => 128 + 2,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> i32 {
        let _ = rt::signal::ctrl_c().await;
        130
    }
}
