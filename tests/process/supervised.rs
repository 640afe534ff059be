//! What systemd hears of a server that it has started.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::helpers::{PATIENCE, Server, data_dir};

/// The end of systemd.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn hear(&self) -> Option<String> {
        let mut message = [0; 512];
        match self.0.recv(&mut message) {
            Ok(length) => Some(String::from_utf8_lossy(&message[..length]).trim().to_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn systemd_hears_when_the_server_is_ready_that_it_lives_and_when_it_stops() {
    let (data, place) = (data_dir(), data_dir());
    let path = place.path().join("notify");
    let systemd = Supervisor(UnixDatagram::bind(&path).unwrap());
    systemd.0.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = Server::start_with(data.path(), |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "900000");
    });
    assert_eq!(systemd.hear().as_deref(), Some("READY=1"));
    let ready = Instant::now();
    for _ in 0..4 {
        assert_eq!(systemd.hear().as_deref(), Some("WATCHDOG=1"));
    }
    assert!(ready.elapsed() >= Duration::from_millis(600), "every 300 ms");
    // Nothing is heard of a server that does not run.
    let signal = |name: &str| {
        let pid = server.pid().to_string();
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    systemd.0.set_read_timeout(Some(Duration::from_millis(900))).unwrap();
    while systemd.hear().is_some() {}
    systemd.0.set_read_timeout(Some(PATIENCE)).unwrap();
    signal("-CONT");
    assert_eq!(systemd.hear().as_deref(), Some("WATCHDOG=1"));
    assert_eq!(server.terminate().code(), Some(0));
    let last = std::iter::from_fn(|| systemd.hear()).find(|message| message != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}
