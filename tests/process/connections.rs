//! Clients that send requests and read no answers.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::helpers::{PATIENCE, Server, data_dir};

/// The processor time that a process has used, in ticks of the system (usually 10 ms).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let field = |at: usize| fields.split_whitespace().nth(at).unwrap().parse::<u64>().unwrap();
    field(11) + field(12)
}

#[test]
fn a_client_that_reads_nothing_keeps_no_thread_busy() {
    let data = data_dir();
    let server = Server::start_without_workers(data.path());
    let ahead = b"GET /docs/api HTTP/1.1\r\nHost: a\r\n\r\n".repeat(12_000);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let mut client = TcpStream::connect(server.address()).unwrap();
            client.set_nonblocking(true).unwrap();
            match client.write(&ahead) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            client
        })
        .collect();
    // At first, answers fill the buffers of the connections.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = ticks(server.pid());
        thread::sleep(Duration::from_secs(1));
        if ticks(server.pid()) - before < 10 {
            break;
        }
        assert!(Instant::now() < deadline, "the server is busy with clients that read nothing");
    }
    assert!(server.get("health").is_some());
    drop(clients);
}
