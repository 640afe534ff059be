//! Other programs' APIs: what a hostile client costs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::helpers::{KEY, Server, data_dir};

/// Routes of every API that take pictures.
const TARGETS: [&str; 7] = [
    "/v1/images/edits",
    "/v1/images/generations",
    "/sdapi/v1/img2img",
    "/sdapi/v1/extra-batch-images",
    "/huggingface",
    "/mcp",
    "/v2/stable-diffusion-v1/runsync",
];

/// Begins a form, sends so many parts of 50 MB, or as many as are taken, and returns the answer's first bytes.
fn send_parts(server: &Server, target: &str, framing: &str, parts: usize) -> String {
    let chunked = framing.starts_with("Transfer-Encoding");
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(
        stream,
        "POST {target} HTTP/1.1\r\nHost: a\r\nAuthorization: {KEY}\r\n{framing}\r\n\
         Content-Type: multipart/form-data; boundary=X\r\n\r\n"
    )
    .unwrap();
    let head = b"--X\r\nContent-Disposition: form-data; name=\"image[]\"; filename=\"a\"\r\n\r\n";
    let block = vec![b'a'; 1 << 20];
    let mut send = |bytes: &[u8]| {
        let framed = if chunked {
            [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
        } else {
            bytes.to_vec()
        };
        stream.write_all(&framed).is_ok()
    };
    for _ in 0..parts {
        if !(send(head) && (0..50).all(|_| send(&block)) && send(b"\r\n")) {
            break;
        }
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The most memory that the server has used so far, in MiB.
fn peak_mib(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
}

#[test]
#[cfg(target_os = "linux")]
fn twenty_parts_of_fifty_megabytes_are_refused_before_they_are_held() {
    let data = data_dir();
    let server = Server::start_without_workers(data.path());
    let before = peak_mib(&server);
    let framings = [format!("Content-Length: {}", 20 * (50 << 20)), "Transfer-Encoding: chunked".to_owned()];
    for target in TARGETS {
        for framing in &framings {
            assert_eq!(send_parts(&server, target, framing, 20), "HTTP/1.1 413", "{target} {framing}");
        }
    }
    let grown = peak_mib(&server) - before;
    assert!(grown < 96, "it took {grown} MiB more");
}
