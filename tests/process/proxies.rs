//! nginx, `HAProxy` and Caddy in front of the server, with the settings of `docs/proxy.md`. They must be installed.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helpers::{KEY, PATIENCE, Server, data_dir, download, small};

const GUIDE: &str = include_str!("../../docs/proxy.md");

/// The block of this language in the guide.
fn block(language: &str) -> &'static str {
    let (_, rest) = GUIDE.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A proxy that passes `/draw/` to a server.
struct Proxy {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Proxy {
    fn nginx(server: &Server) -> Self {
        let (dir, port) = (data_dir(), free_port());
        let block = block("nginx");
        // The certificate is the reader's own.
        let lines: Vec<_> = block.lines().filter(|line| !line.contains("ssl_certificate")).collect();
        let site = lines
            .join("\n")
            .replace("listen 443 ssl", &format!("listen 127.0.0.1:{port}"))
            .replace("127.0.0.1:8000", server.address());
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {}/{name};\n", dir.path().display()))
            .concat();
        let user = if std::os::unix::fs::MetadataExt::uid(&dir.path().metadata().unwrap()) == 0 {
            "user root;"
        } else {
            ""
        };
        let text = format!(
            "{user}\ndaemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log {dir}/log;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{site}}}\n",
            dir = dir.path().display()
        );
        let path = dir.path().join("nginx.conf");
        fs::write(&path, text).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(dir.path()).arg("-c").arg(&path);
        Self::start(command, port, dir)
    }

    fn haproxy(server: &Server) -> Self {
        let (dir, port) = (data_dir(), free_port());
        let site = block("haproxy")
            .replace(":443 ssl crt /etc/haproxy/pictures.pem", &format!("127.0.0.1:{port}"))
            .replace("127.0.0.1:8000", server.address());
        let defaults = "defaults\n    mode http\n    timeout connect 5s\n    timeout client 10m\n    timeout server 10m\n";
        let path = dir.path().join("haproxy.cfg");
        fs::write(&path, format!("{defaults}{site}")).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&path);
        Self::start(command, port, dir)
    }

    fn caddy(server: &Server) -> Self {
        let (dir, port) = (data_dir(), free_port());
        let (_, after) = GUIDE.split_once("## Caddy").unwrap();
        let site = after.split("```").nth(1).unwrap().trim_start_matches("text\n");
        let site = site
            .replace("pictures.example", &format!("http://127.0.0.1:{port}"))
            .replace("127.0.0.1:8000", server.address());
        let path = dir.path().join("Caddyfile");
        fs::write(&path, format!("{{\n    admin off\n}}\n{site}")).unwrap();
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&path);
        // It keeps certificates there.
        command.env("HOME", dir.path()).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
        command.stderr(Stdio::null());
        Self::start(command, port, dir)
    }

    fn start(mut command: Command, port: u16, dir: TempDir) -> Self {
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{command:?} listens");
            thread::sleep(Duration::from_millis(20));
        }
        Self { child, port, _dir: dir }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/draw/{path}", self.port)
    }

    fn post(&self, path: &str, body: Value) -> Value {
        let url = self.url(&format!("v2/stable-diffusion-v1/{path}"));
        ureq::post(url).header("Authorization", KEY).send_json(body).unwrap().body_mut().read_json().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(url: &str) -> String {
    ureq::get(url).header("Accept", "text/html").call().unwrap().body_mut().read_to_string().unwrap()
}

/// The page, the guide, a picture and a job's events, all behind `/draw/`.
fn assert_all_is_served(proxy: &Proxy) {
    let page = text(&proxy.url(""));
    let (_, script) = page.split_once("src=\"").unwrap();
    let script = script.split_once('"').unwrap().0;
    assert!(text(&proxy.url(script)).contains("import"), "{script}");
    assert!(text(&proxy.url("docs")).contains(&format!("127.0.0.1:{}/draw/v2", proxy.port)));

    let drawn = proxy.post("runsync?wait=60000", json!({"input": small("a dog")}));
    let image = drawn["output"][0]["image"].as_str().unwrap_or_else(|| panic!("{drawn}"));
    assert!(image.starts_with(&proxy.url("v2/")), "{image}");
    assert!(!download(image).is_empty());

    let large =
        json!({"input": {"prompt": format!("a dog{}", " ".repeat(9 << 20)), "num_inference_steps": 60}});
    // Spaces in a prompt count, so this one is refused; the proxy has let it through.
    let refused =
        ureq::post(proxy.url("v2/stable-diffusion-v1/run")).header("Authorization", KEY).send_json(large);
    assert!(matches!(refused, Err(ureq::Error::StatusCode(400))), "{refused:?}");

    let job = proxy.post("run", json!({"input": {"prompt": "a dog", "num_inference_steps": 500}}));
    let id = job["id"].as_str().unwrap();
    let events = proxy.post(&format!("events/{id}/url"), json!({}));
    let url = events["url"].as_str().unwrap();
    let (_, target) = url.split_once(&proxy.port.to_string()).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").unwrap();
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let mut events = lines.filter(|line| line.starts_with("event: "));
    // They come while the job runs.
    for _ in 0..5 {
        assert!(events.any(|line| line == "event: progress"));
    }
    proxy.post(&format!("cancel/{id}"), json!({}));
    assert_eq!(events.last().as_deref(), Some("event: end"));
}

#[test]
#[ignore = "needs nginx"]
fn nginx_serves_everything_below_a_path() {
    let data = data_dir();
    let server = Server::start(data.path());
    assert_all_is_served(&Proxy::nginx(&server));
}

#[test]
#[ignore = "needs HAProxy"]
fn haproxy_serves_everything_below_a_path() {
    let data = data_dir();
    let server = Server::start(data.path());
    assert_all_is_served(&Proxy::haproxy(&server));
}

#[test]
#[ignore = "needs Caddy"]
fn caddy_serves_everything_below_a_path() {
    let data = data_dir();
    let server = Server::start(data.path());
    assert_all_is_served(&Proxy::caddy(&server));
}
