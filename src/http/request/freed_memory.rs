//! Gives freed memory back to the system after large request bodies.
//!
//! glibc keeps what it has freed for later, and one large body leaves its pages in many places. So some time after the last
//! large body a thread of its own asks for them to be given back: that takes milliseconds, and no request waits for it.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Smaller bodies are not worth it.
pub const LARGE: usize = 1 << 20;
/// Until what was made of the body is freed, too.
const PAUSE: Duration = Duration::from_secs(2);

/// A large body has been freed.
pub fn note() {
    static SENDER: OnceLock<Option<SyncSender<()>>> = OnceLock::new();
    let sender = SENDER.get_or_init(|| {
        let (sender, receiver) = sync_channel(1);
        let thread = thread::Builder::new().name("freed memory".to_owned());
        thread.spawn(move || give_back_when_told(&receiver)).ok().map(|_| sender)
    });
    if let Some(sender) = sender {
        // If it is full, the thread will run anyway.
        let _ = sender.try_send(());
    }
}

fn give_back_when_told(receiver: &Receiver<()>) {
    while receiver.recv().is_ok() {
        thread::sleep(PAUSE);
        while receiver.try_recv().is_ok() {}
        give_back();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "glibc's function has no safe form")]
fn give_back() {
    // SAFETY: it takes a number, touches only memory that is free, and may be called from any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}
