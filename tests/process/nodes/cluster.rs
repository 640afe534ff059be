//! Three servers with the balancer of `deploy/haproxy` in front of them, and a client of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::helpers::{KEY, PATIENCE, Server, data_dir, output};
use crate::proxies::free_port;

pub const SETTINGS: &str = include_str!("../../../deploy/haproxy/haproxy.cfg");
pub const NATIVE: &str = "/v2/stable-diffusion-v1";
/// How long `HAProxy` may take to hear that a node is as it is: its checks come every second, and it believes the second one.
pub const HEARD: Duration = Duration::from_secs(4);

/// Three nodes on addresses of their own, with one balancer in front of them.
pub struct Cluster {
    pub nodes: BTreeMap<String, Node>,
    port: u16,
    pub agent_port: u16,
    haproxy: Child,
    public_port: u16,
    _dir: TempDir,
}

pub struct Node {
    number: u32,
    pub data: TempDir,
    pub server: Option<Server>,
}

impl Cluster {
    pub fn start() -> Self {
        let [port, agent_port, public_port] = [(); 3].map(|()| free_port());
        let dir = data_dir();
        let text = SETTINGS
            .replace("bind :80\n", &format!("bind 127.0.0.1:{public_port}\n"))
            .replace("10.0.0.", "127.0.0.1")
            .replace(":8000", &format!(":{port}"))
            .replace("agent-port 9101", &format!("agent-port {agent_port}"));
        let path = dir.path().join("haproxy.cfg");
        fs::write(&path, text).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-q").arg("-f").arg(&path).stdout(Stdio::null()).stderr(Stdio::inherit());
        let haproxy = command.spawn().unwrap();
        let node = |number| Node { number, data: data_dir(), server: None };
        let nodes = (1..=3).map(|number| (format!("{number:04x}"), node(number))).collect();
        let mut cluster = Self { nodes, port, agent_port, haproxy, public_port, _dir: dir };
        let names: Vec<_> = cluster.nodes.keys().cloned().collect();
        for name in &names {
            cluster.start_node(name);
        }
        for name in &names {
            cluster.wait_until_ready(name);
        }
        thread::sleep(HEARD);
        cluster
    }

    pub fn start_node(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).unwrap();
        let number = node.number;
        let address = |port: u16| format!("127.0.0.1{number}:{port}");
        let agent = address(self.agent_port);
        let server = Server::start_at(&address(self.port), node.data.path(), |command| {
            command
                .env("STABLEHAND_NODE", number.to_string())
                .env("STABLEHAND_AGENT_LISTEN", agent)
                .env("STABLEHAND_SIGNING_KEY", "A".repeat(43))
                .env("STABLEHAND_SHUTDOWN_GRACE", "1s");
        });
        node.server = Some(server);
    }

    pub fn wait_until_ready(&self, name: &str) {
        let url = format!("http://{}/ready", self.server(name).address());
        until(&format!("{name} is ready"), || ureq::get(&url).call().is_ok());
    }

    pub fn server(&self, name: &str) -> &Server {
        self.nodes[name].server.as_ref().unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.public_port)
    }

    pub fn get(&self, path: &str) -> Response<Body> {
        agent().get(self.url(path)).header("Authorization", KEY).call().unwrap()
    }

    pub fn post(&self, path: &str, body: &Value) -> Response<Body> {
        agent().post(self.url(path)).header("Authorization", KEY).send_json(body).unwrap()
    }

    /// Submits a job through the balancer.
    pub fn submit(&self, input: &Value) -> String {
        let body = json_of(self.post(&format!("{NATIVE}/run"), &json!({"input": input})));
        body["id"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
    }

    pub fn status(&self, id: &str) -> Value {
        json_of(self.get(&format!("{NATIVE}/status/{id}")))
    }

    /// Waits until the job has ended, through the balancer.
    pub fn wait(&self, id: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut answer = self.get(&format!("{NATIVE}/status-sync/{id}?wait=10000"));
            let body: Value = answer.body_mut().read_json().unwrap();
            assert_eq!(answer.status(), 200, "{id}: {body}");
            if !["IN_QUEUE", "IN_PROGRESS"].contains(&body["status"].as_str().unwrap()) {
                return body;
            }
            assert!(Instant::now() < deadline, "{body}");
        }
    }

    /// Gives a node so much to do that the others are better.
    pub fn keep_busy(&self, name: &str) {
        let server = self.server(name);
        // The machine of the test has to draw for the others, too.
        for thread in fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap() {
            let thread = thread.unwrap().file_name();
            assert!(
                output(command("renice", &["-n", "19", "-p", thread.to_str().unwrap()])).status.success()
            );
        }
        let long = json!({"prompt": "a dog", "num_inference_steps": 500, "num_outputs": 10});
        (0..30).for_each(|_| _ = server.submit(&long).unwrap());
        let url = format!("http://{}/ready?max_wait=5s", server.address());
        until(&format!("{name} has work for more than 5 s"), || ureq::get(&url).call().is_err());
        thread::sleep(HEARD);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.haproxy.kill();
        let _ = self.haproxy.wait();
    }
}

pub fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// A client that sees every answer, and opens a connection for each request as different clients do.
pub fn agent() -> Agent {
    let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
    config.max_idle_connections(0).build().into()
}

pub fn json_of(mut answer: Response<Body>) -> Value {
    answer.body_mut().read_json().unwrap()
}

/// The node in an id.
pub fn node_of(id: &str) -> &str {
    &id.rsplit('-').next().unwrap()[..4]
}

pub fn header<'a>(answer: &'a Response<Body>, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The lines of a job's events until it ends.
pub fn events(url: &str) -> Vec<String> {
    let (address, target) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /{target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    BufReader::new(stream).lines().map_while(Result::ok).filter(|line| line.starts_with("event: ")).collect()
}
