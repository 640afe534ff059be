//! The signals that stop the server and long commands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, thread};

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

/// Lets SIGTERM and SIGINT end a command that keeps what it has done. They say `kept` then.
pub(super) fn exit_on_signal(kept: &'static str) {
    on_signal(move |code| {
        // The terminal shows ^C on the line of a progress bar.
        eprintln!("\nstablehand: stopped: {kept}");
        std::process::exit(code);
    });
}

/// A flag that SIGTERM or SIGINT raises. A second signal ends the process at once.
pub(super) fn stop_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    on_signal(move |code| {
        if raised.swap(true, Ordering::SeqCst) {
            eprintln!("stablehand: stopped at once");
            std::process::exit(code);
        }
    });
    flag
}

/// Calls `act` with the exit code for each signal that stops a program, on a thread of its own. Without such a thread, or
/// where signals cannot be watched, they end the process as usual.
fn on_signal(act: impl Fn(i32) + Send + 'static) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let watch = move || {
        rt::System::new().block_on(async {
            let Ok(mut signals) = Signals::new() else { return };
            // Whoever called may now say something, and get a signal in answer.
            let _ = ready.send(());
            loop {
                act(signals.next().await);
            }
        });
    };
    if thread::Builder::new().name("signals".to_owned()).spawn(watch).is_ok() {
        let _ = is_ready.recv();
    }
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
