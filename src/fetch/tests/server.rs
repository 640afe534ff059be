//! A server on this machine that answers by script, for tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::domain::WebUrl;

/// Answers each connection with the next of its answers, and repeats the last one. It keeps the requests that it got.
pub(crate) struct Server {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(mut answer: impl FnMut(&mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                log.lock().unwrap().push(read_request(&mut stream));
                answer(&mut stream);
            }
        });
        Self { address, requests }
    }

    pub fn answering<A: AsRef<[u8]>>(answers: &[A]) -> Self {
        let answers: Vec<_> = answers.iter().map(|answer| answer.as_ref().to_vec()).collect();
        let mut next = 0;
        Self::start(move |stream| {
            let _ = stream.write_all(&answers[next.min(answers.len() - 1)]);
            next += 1;
        })
    }

    pub fn url(&self, host: &str, path: &str) -> WebUrl {
        format!("http://{host}:{}{path}", self.address.port()).parse().unwrap()
    }

    pub fn asked(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut text = String::new();
    while reader.read_line(&mut text).unwrap() > 2 {}
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    text + &String::from_utf8_lossy(&body)
}

pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

pub fn redirect_to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}
