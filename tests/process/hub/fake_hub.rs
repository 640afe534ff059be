//! A fake hub on this machine. Its large files are on a second origin. It breaks off, sends wrong data and refuses as
//! the test tells it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub type Files = BTreeMap<String, Vec<u8>>;

/// The state of both servers: their files, their behaviour and the requests that they got.
#[derive(Default)]
pub struct World {
    /// The files by `ORG/NAME` or `ORG/NAME@REV`.
    pub repositories: BTreeMap<String, Files>,
    /// Extra entries in the list of every repository.
    pub extra_entries: Vec<Value>,
    /// The number of entries on a page of the list; 0 means all.
    pub page: usize,
    /// Requests without this token get this status and error code.
    pub token: Option<(String, u16, &'static str)>,
    /// Requests to the second origin under its own name need this token.
    pub site_token: Option<&'static str>,
    /// Other files, by path on the second origin.
    pub plain: BTreeMap<String, Plain>,
    /// What happens to the next bodies from the second origin. Later bodies arrive complete.
    pub accidents: VecDeque<Accident>,
    /// The file that replaces another at `Accident::Change`.
    pub next_plain: Option<(String, Plain)>,
    /// Sends a range even if `If-Range` does not match.
    pub ignores_if_range: bool,
    pub seen: Vec<Seen>,
}

#[derive(Clone, Default)]
pub struct Plain {
    pub bytes: Vec<u8>,
    /// With its quotation marks.
    pub etag: Option<&'static str>,
    pub status: Option<u16>,
    /// Sent without a Content-Length: the end of the connection ends the body.
    pub without_length: bool,
    pub headers: Vec<(&'static str, String)>,
}

#[derive(Clone, Copy)]
pub enum Accident {
    /// The connection breaks after this many bytes.
    Cut(usize),
    /// The body stops after this many bytes, and the connection stays open.
    Stall(usize),
    /// The connection breaks after this many bytes, and the file changes.
    Change(usize),
    /// Every byte is wrong.
    Spoil,
    /// The server answers 503.
    Busy,
    /// The server answers 404.
    Gone,
}

#[derive(Clone, Debug)]
pub struct Seen {
    /// Whether the request went to the hub, and not to the second origin.
    pub by_hub: bool,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

pub struct FakeHub {
    pub url: String,
    /// The second origin.
    pub other: String,
    world: Arc<Mutex<World>>,
}

impl FakeHub {
    pub fn start() -> Self {
        let (hub, other) = (listener(), listener());
        let (url, other_url) = (url_of(&hub), url_of(&other));
        let world = Arc::new(Mutex::new(World::default()));
        for (listener, by_hub) in [(hub, true), (other, false)] {
            let (world, other_url) = (Arc::clone(&world), other_url.clone());
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let (world, other_url) = (Arc::clone(&world), other_url.clone());
                    // A client that hangs up ends this thread.
                    thread::spawn(move || answer(&stream.unwrap(), by_hub, &world, &other_url));
                }
            });
        }
        Self { url, other: other_url, world }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn add(&self, name: &str, files: &[(&str, Vec<u8>)]) {
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())).collect();
        self.world().repositories.insert(name.to_owned(), files);
    }

    /// The ranges requested from the second origin, in order.
    pub fn ranges(&self) -> Vec<Option<String>> {
        let world = self.world();
        let other_answer = world.seen.iter().filter(|seen| !seen.by_hub);
        other_answer.map(|seen| seen.headers.get("range").cloned()).collect()
    }

    /// The requested files, each once, without the commit.
    pub fn files_asked_for(&self) -> Vec<String> {
        let world = self.world();
        let resolved = world.seen.iter().filter(|seen| seen.by_hub).filter_map(|seen| {
            let (_, rest) = seen.path.split_once("/resolve/")?;
            Some(rest.split_once('/')?.1.to_owned())
        });
        let mut files: Vec<_> = resolved.collect();
        files.sort();
        files.dedup();
        files
    }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn url_of(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().unwrap())
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn git_blob(bytes: &[u8]) -> String {
    hex(&Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn commit(files: &Files) -> String {
    let all: Vec<_> = files.iter().map(|(path, bytes)| format!("{path} {}", sha256(bytes))).collect();
    hex(&Sha1::digest(all.join("\n")))
}

/// Whether git stores the file with LFS.
fn is_large(path: &str) -> bool {
    !matches!(path.rsplit('.').next(), Some("json" | "txt"))
}

fn answer(mut stream: &TcpStream, by_hub: bool, world: &Mutex<World>, other: &str) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)).map(str::to_owned) else { return };
    let headers: BTreeMap<_, _> = lines
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut world = world.lock().unwrap();
    let seen = Seen { by_hub, path, headers };
    world.seen.push(seen.clone());
    let accident = if by_hub { None } else { world.accidents.pop_front() };
    let (head, body) = if by_hub { hub_answer(&world, &seen, other) } else { other_answer(&world, &seen) };
    if matches!(accident, Some(Accident::Change(_)))
        && let Some((path, next)) = world.next_plain.take()
    {
        world.plain.insert(path, next);
    }
    drop(world);
    let (head, body) = match accident {
        Some(Accident::Gone) => (reply("404 Gone", &[], 0), Vec::new()),
        Some(Accident::Busy) => (reply("503 Busy", &[], 0), Vec::new()),
        Some(Accident::Spoil) => (head, body.iter().map(|byte| !byte).collect()),
        _ => (head, body),
    };
    let sent = match accident {
        Some(Accident::Cut(length) | Accident::Change(length) | Accident::Stall(length)) => {
            &body[..length.min(body.len())]
        }
        _ => &body[..],
    };
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(sent));
    if matches!(accident, Some(Accident::Stall(_))) {
        // Wait until the client hangs up.
        let _ = stream.read(&mut [0]);
    }
}

fn reply(status: &str, headers: &[(&str, String)], length: usize) -> String {
    let headers =
        headers.iter().fold(String::new(), |text, (name, value)| format!("{text}{name}: {value}\r\n"));
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n")
}

fn json_answer(value: &Value, headers: &[(&str, String)]) -> (String, Vec<u8>) {
    let body = value.to_string().into_bytes();
    (reply("200 OK", headers, body.len()), body)
}

fn refusal(status: u16, code: &str) -> (String, Vec<u8>) {
    (reply(&format!("{status} No"), &[("X-Error-Code", code.to_owned())], 0), Vec::new())
}

fn hub_answer(world: &World, seen: &Seen, other: &str) -> (String, Vec<u8>) {
    if let Some((token, status, code)) = &world.token
        && seen.headers.get("authorization") != Some(&format!("Bearer {token}"))
    {
        return refusal(*status, code);
    }
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let parts: Vec<&str> = path.trim_matches('/').splitn(6, '/').collect();
    let named = |org: &str, name: &str| {
        let id = format!("{org}/{name}");
        let belongs = move |key: &str| key == id || key.starts_with(&format!("{id}@"));
        world.repositories.iter().filter(move |(key, _)| belongs(key))
    };
    match parts[..] {
        ["api", "models", org, name, "revision", revision] => {
            if named(org, name).count() == 0 {
                return refusal(401, "RepoNotFound");
            }
            let key = match revision {
                "main" => format!("{org}/{name}"),
                other => format!("{org}/{name}@{}", other.replace("%2F", "/")),
            };
            match world.repositories.get(&key) {
                Some(files) => json_answer(&json!({"id": key, "sha": commit(files)}), &[]),
                None => refusal(404, "RevisionNotFound"),
            }
        }
        ["api", "models", org, name, "tree", wanted] => {
            let Some((_, files)) = named(org, name).find(|(_, files)| commit(files) == wanted) else {
                return refusal(404, "RevisionNotFound");
            };
            let mut entries = vec![json!({"type": "directory", "path": "unet", "oid": "0", "size": 0})];
            entries.extend(files.iter().map(|(path, bytes)| entry(path, bytes)));
            entries.extend(world.extra_entries.iter().cloned());
            let first: usize = query.split("cursor=").nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
            let page = if world.page == 0 { entries.len() } else { world.page };
            let last = (first + page).min(entries.len());
            let link =
                format!("<http://{}{path}?recursive=true&cursor={last}>; rel=\"next\"", seen.headers["host"]);
            let headers = if last < entries.len() { vec![("Link", link)] } else { Vec::new() };
            json_answer(&json!(entries[first..last]), &headers)
        }
        [org, name, "resolve", wanted, ..] => {
            let file = path.splitn(6, '/').nth(5).unwrap_or_default().replace("%20", " ");
            let found = named(org, name).find(|(_, files)| commit(files) == wanted);
            let Some(bytes) = found.and_then(|(_, files)| files.get(&file)) else {
                return refusal(404, "EntryNotFound");
            };
            let mut headers = vec![("X-Repo-Commit", wanted.to_owned())];
            if !is_large(&file) {
                headers.push(("ETag", format!("\"{}\"", git_blob(bytes))));
                return (reply("200 OK", &headers, bytes.len()), bytes.clone());
            }
            headers.push(("X-Linked-ETag", format!("\"{}\"", sha256(bytes))));
            headers.push(("X-Linked-Size", bytes.len().to_string()));
            headers.push(("Location", format!("{other}/{}?signature=1", sha256(bytes))));
            (reply("302 Found", &headers, 0), Vec::new())
        }
        _ => refusal(404, "None"),
    }
}

fn entry(path: &str, bytes: &[u8]) -> Value {
    let mut entry = json!({"type": "file", "path": path, "oid": git_blob(bytes), "size": bytes.len()});
    if is_large(path) {
        entry["oid"] = json!("0".repeat(40));
        entry["lfs"] = json!({"oid": sha256(bytes), "size": bytes.len(), "pointerSize": 134});
    }
    entry
}

fn other_answer(world: &World, seen: &Seen) -> (String, Vec<u8>) {
    let is_named_by_number = seen.headers.get("host").is_some_and(|host| host.starts_with("127."));
    let sent = seen.headers.get("authorization").and_then(|sent| sent.strip_prefix("Bearer "));
    if world.site_token.is_some_and(|token| is_named_by_number && sent != Some(token)) {
        return (reply("401 No", &[], 0), Vec::new());
    }
    let path = seen.path.split('?').next().unwrap().trim_start_matches('/');
    let large = || world.repositories.values().flat_map(BTreeMap::values).find(|bytes| sha256(bytes) == path);
    let plain = match (world.plain.get(path), large()) {
        (Some(plain), _) => plain.clone(),
        (None, Some(bytes)) => {
            Plain { bytes: bytes.clone(), etag: Some("\"of-the-other\""), ..Plain::default() }
        }
        (None, None) => return (reply("404 No", &[], 0), Vec::new()),
    };
    let mut headers = plain.headers.clone();
    headers.extend(plain.etag.map(|etag| ("ETag", etag.to_owned())));
    if let Some(status) = plain.status {
        return (reply(&format!("{status} So"), &headers, plain.bytes.len()), plain.bytes);
    }
    if plain.without_length {
        let head = reply("200 OK", &headers, 0).replace("content-length: 0\r\n", "");
        return (head, plain.bytes);
    }
    let size = plain.bytes.len();
    let range = seen.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let is_same = seen.headers.get("if-range").is_none_or(|known| plain.etag == Some(known));
    match range.filter(|_| is_same || world.ignores_if_range) {
        None => (reply("200 OK", &headers, size), plain.bytes),
        Some((from, to)) => {
            let (from, to) = (from.parse::<usize>().unwrap(), to.parse::<usize>().unwrap_or(size - 1));
            if from >= size {
                return (reply("416 No", &headers, 0), Vec::new());
            }
            headers.push(("Content-Range", format!("bytes {from}-{to}/{size}")));
            (reply("206 Partial Content", &headers, to + 1 - from), plain.bytes[from..=to].to_vec())
        }
    }
}
