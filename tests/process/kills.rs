//! Kills while clients submit, cancel, retry and purge. Every second one comes in the middle of a long job.
//!
//! `STABLEHAND_KILLS=1000 cargo test --test process kills -- --ignored --nocapture` is the proof at its full size.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::helpers::{KEY, Server, data_dir, next};
use crate::mix::{self, Mix, PATIENCE};

/// A job over which the process dies a third time fails.
const MOST_KILLS_OF_ONE: u32 = 2;

/// What the server told its clients.
#[derive(Default)]
struct Told {
    jobs: Mutex<BTreeMap<String, Acknowledged>>,
    cancelled: Mutex<BTreeSet<String>>,
    /// The purges since the last restart.
    purges: Mutex<Vec<Purge>>,
}

struct Acknowledged {
    sent: Instant,
    /// Which of the mix it is.
    input: usize,
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// Not ended, as far as we know.
    Open,
    /// In this state.
    Final(String),
    /// A purge removed it. `counted` says that the purge was answered.
    Purged {
        counted: bool,
    },
    Lost,
}

/// A purge. It may have removed jobs that were sent before it was over.
struct Purge {
    over: Instant,
    /// The number of removed jobs, if the purge was answered.
    removed: Option<u64>,
}

impl Told {
    fn some_job(&self, random: &mut u64) -> Option<String> {
        let jobs = locked(&self.jobs);
        let recent = jobs.len().min(20);
        let skipped = usize::try_from(next(random)).unwrap_or_default() % recent.max(1);
        jobs.keys().rev().nth(skipped).cloned()
    }

    /// Checks every open job, and explains each missing one by a purge: a purge can explain as many jobs as it removed,
    /// if they were sent before it was over. (It may also have removed jobs that were never acknowledged.)
    fn take_stock(&self, server: &Server) {
        let purges = std::mem::take(&mut *locked(&self.purges));
        let unanswered = purges.iter().filter(|purge| purge.removed.is_none()).map(|purge| purge.over).max();
        let mut jobs = locked(&self.jobs);
        let mut gone = Vec::new();
        for (id, job) in jobs.iter_mut().filter(|(_, job)| job.end == End::Open) {
            let Acknowledged { sent, end, .. } = job;
            match state(server, id) {
                // Who tries again a job that was given up brings it back.
                Some(state) if mix::is_open(&state) || state == "FAILED" => {}
                Some(state) => *end = End::Final(state),
                None => gone.push((*sent, end)),
            }
        }
        // The latest first: a purge that can explain a job can explain every earlier one.
        gone.sort_by_key(|(sent, _)| std::cmp::Reverse(*sent));
        let mut used = 0_u64;
        for (sent, end) in gone {
            let answered = purges.iter().filter(|purge| purge.over > sent).filter_map(|purge| purge.removed);
            if unanswered.is_some_and(|over| over > sent) {
                *end = End::Purged { counted: false };
            } else if used < answered.sum::<u64>() {
                used += 1;
                *end = End::Purged { counted: true };
            } else {
                *end = End::Lost;
            }
        }
    }

    fn lost(&self) -> Vec<String> {
        let jobs = locked(&self.jobs);
        jobs.iter().filter(|(_, job)| job.end == End::Lost).map(|(id, _)| id.clone()).collect()
    }

    fn ids(&self) -> Vec<String> {
        locked(&self.jobs).keys().cloned().collect()
    }
}

/// A job's state, if the server knows it.
fn state(server: &Server, id: &str) -> Option<String> {
    let request = ureq::get(server.url(&format!("status/{id}"))).header("Authorization", KEY);
    match request.call() {
        Err(ureq::Error::StatusCode(404)) => None,
        // A machine that stood still for a while may have cost the connection.
        Err(_) => {
            Some(mix::ask(server, &format!("status/{id}")).unwrap()["status"].as_str().unwrap().to_owned())
        }
        answer => {
            let body: Value = answer.unwrap().body_mut().read_json().unwrap();
            Some(body["status"].as_str().unwrap().to_owned())
        }
    }
}

/// The long job that is killed from time to time.
#[derive(Default)]
struct Long {
    job: Option<(String, u32)>,
    kills: u32,
}

impl Long {
    /// Waits until a long job is in its middle, so that it can be killed. One that was killed often enough ends first.
    fn reach_middle(&mut self, server: &Server, told: &Told, mix: &Mix, url: &str, random: &mut u64) {
        loop {
            let (id, kills) = match self.job.take() {
                Some(job) => job,
                None => (submit(server, told, mix, url, mix.long(random)).unwrap(), 0),
            };
            let step = 8 + next(random) % 60;
            if kills == MOST_KILLS_OF_ONE {
                let deadline = Instant::now() + PATIENCE;
                while state(server, &id).is_some_and(|state| mix::is_open(&state)) {
                    assert!(Instant::now() < deadline, "{id} ends");
                    thread::sleep(Duration::from_millis(10));
                }
            } else if mix::reaches(server, &id, step) {
                self.job = Some((id, kills + 1));
                self.kills += 1;
                return;
            }
        }
    }
}

#[test]
#[ignore = "takes minutes; .ci/run runs it"]
fn kills_lose_no_job_complete_none_twice_and_change_no_picture() {
    let rounds = mix::number("STABLEHAND_KILLS", 100);
    let mix = Mix::draw();
    let (data, receiver, told, mut long) = (data_dir(), Receiver::start(), Told::default(), Long::default());
    let start = || {
        mix::start(data.path(), |command| {
            command.env("STABLEHAND_ALLOW_ADDRESSES", "127.0.0.1");
        })
    };
    let (mut random, begun) = (0x5eed_u64, Instant::now());
    for round in 0..rounds {
        let server = start();
        told.take_stock(&server);
        assert_eq!(told.lost(), [""; 0], "no acknowledged job is lost");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let clients = [submit_short, submit_short, cancel, retry, purge];
            for (client, seed) in clients.into_iter().zip(1_u64..) {
                let (server, stop, told, mix, url) = (&server, &stop, &told, &mix, &receiver.url);
                let mut random = random ^ (seed << 32);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        client(server, told, mix, url, &mut random);
                        thread::sleep(Duration::from_millis(20 + next(&mut random) % 100));
                    }
                });
            }
            if round % 2 == 1 {
                long.reach_middle(&server, &told, &mix, &receiver.url, &mut random);
            } else {
                thread::sleep(Duration::from_millis(50 + next(&mut random) % 500));
            }
            server.kill_now();
            stop.store(true, Ordering::Relaxed);
        });
        if (round + 1) % 50 == 0 {
            println!(
                "{} kills in {:.0} s, {} jobs",
                round + 1,
                begun.elapsed().as_secs_f64(),
                told.ids().len()
            );
        }
    }

    let server = start();
    told.take_stock(&server);
    assert_eq!(told.lost(), [""; 0], "no acknowledged job is lost");
    let purged =
        |counted| locked(&told.jobs).values().filter(|job| job.end == End::Purged { counted }).count();
    let (counted, uncounted) = (purged(true), purged(false));
    let ends = ends(&server, &told, &mix);
    println!(
        "{rounds} kills, {} of them in the middle of a long job; {} jobs acknowledged, {counted} purged and {uncounted} \
         maybe, ends: {:?}",
        long.kills,
        told.ids().len(),
        tally(&ends)
    );
    for (id, job) in locked(&told.jobs).iter().filter(|(_, job)| !matches!(job.end, End::Purged { .. })) {
        let (end, found) = (&job.end, ends.get(id).unwrap_or_else(|| panic!("{id} is lost")));
        assert!(*end == End::Open || *end == End::Final(found.clone()), "{id}: first {end:?}, then {found}");
    }
    for id in locked(&told.cancelled).iter() {
        assert_eq!(ends.get(id).map(String::as_str), Some("CANCELLED"), "{id} was cancelled");
    }
    let deadline = Instant::now() + PATIENCE;
    let untold = || ends.iter().filter(|(id, end)| !receiver.was_told(id, end)).count();
    while untold() > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(untold(), 0, "no webhook is lost");
    for (id, messages) in locked(&receiver.ends).iter() {
        let completions = messages.values().filter(|end| *end == "COMPLETED").count();
        assert!(completions <= 1, "{id} was completed {completions} times");
    }
    assert_eq!(server.terminate().code(), Some(0));
    let database = rusqlite::Connection::open(data.path().join("stablehand.db")).unwrap();
    let count = |query: &str| database.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    let only = |query: &str| assert_eq!(count(&format!("select count(*) from {query}")), 0, "{query}");
    only("images where job not in (select seq from jobs where status = 'COMPLETED')");
    only("outbox");
    only("saved_states");
    only("jobs where status in ('IN_QUEUE', 'IN_PROGRESS')");
    // Nothing but the third death of the process gives up a job.
    only("jobs where status = 'FAILED' and crashes < 3");
}

fn submit(server: &Server, told: &Told, mix: &Mix, url: &str, input: usize) -> Option<String> {
    let sent = Instant::now();
    let answer = server.post("run", &json!({"input": mix.inputs[input], "webhook": url}))?;
    let id = answer["id"].as_str().unwrap().to_owned();
    let known = locked(&told.jobs).insert(id.clone(), Acknowledged { sent, input, end: End::Open });
    assert!(known.is_none(), "no id is given twice");
    Some(id)
}

fn submit_short(server: &Server, told: &Told, mix: &Mix, url: &str, random: &mut u64) {
    if mix::has_room(server) {
        submit(server, told, mix, url, mix.short(random));
    }
}

fn cancel(server: &Server, told: &Told, _: &Mix, _: &str, random: &mut u64) {
    let Some(id) = told.some_job(random).filter(|_| next(random).is_multiple_of(4)) else { return };
    if server.get(&format!("cancel/{id}")).is_some_and(|answer| answer["status"] == "CANCELLED") {
        locked(&told.cancelled).insert(id);
    }
}

fn retry(server: &Server, told: &Told, _: &Mix, _: &str, random: &mut u64) {
    if let Some(id) = told.some_job(random) {
        server.post(&format!("retry/{id}"), &json!(null));
    }
}

fn purge(server: &Server, told: &Told, _: &Mix, _: &str, random: &mut u64) {
    if next(random).is_multiple_of(60) {
        let answer = server.post("purge-queue", &json!(null));
        let removed = answer.map(|answer| answer["removed"].as_u64().unwrap());
        locked(&told.purges).push(Purge { over: Instant::now(), removed });
    }
}

/// The final state of every job that still exists. Looks at every picture.
fn ends(server: &Server, told: &Told, mix: &Mix) -> BTreeMap<String, String> {
    let inputs: Vec<_> = locked(&told.jobs).iter().map(|(id, job)| (id.clone(), job.input)).collect();
    let mut ends = BTreeMap::new();
    for (id, input) in inputs.into_iter().filter(|(id, _)| state(server, id).is_some()) {
        let body = mix::wait(server, &id);
        let status = body["status"].as_str().unwrap().to_owned();
        if status == "COMPLETED" {
            mix.assert_drawn(input, &body);
        }
        ends.insert(id, status);
    }
    ends
}

fn tally(ends: &BTreeMap<String, String>) -> BTreeMap<&str, usize> {
    let mut tally = BTreeMap::new();
    for end in ends.values() {
        *tally.entry(end.as_str()).or_default() += 1;
    }
    tally
}

/// Receives webhooks. It refuses every seventh message the first time.
struct Receiver {
    url: String,
    /// The state in each message, by job and message id.
    ends: Arc<Mutex<BTreeMap<String, BTreeMap<String, String>>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
        let ends: Arc<Mutex<BTreeMap<String, BTreeMap<String, String>>>> = Arc::default();
        let (noted, refused) = (Arc::clone(&ends), Arc::new(Mutex::new(BTreeSet::new())));
        let count = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (noted, refused, count) = (Arc::clone(&noted), Arc::clone(&refused), Arc::clone(&count));
                thread::spawn(move || {
                    // A killed server breaks off in the middle.
                    let Some((name, body)) = message(&stream) else { return };
                    let seventh = count.fetch_add(1, Ordering::Relaxed) % 7 == 0;
                    let refuse = seventh && locked(&refused).insert(name.clone());
                    if !refuse {
                        let text = |field: &str| body[field].as_str().unwrap().to_owned();
                        locked(&noted).entry(text("id")).or_default().insert(name, text("status"));
                    }
                    let status = if refuse { "503 Later" } else { "200 OK" };
                    let answer =
                        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    let _ = (&stream).write_all(answer.as_bytes());
                });
            }
        });
        Self { url, ends }
    }

    fn was_told(&self, id: &str, end: &str) -> bool {
        locked(&self.ends).get(id).is_some_and(|messages| messages.values().any(|told| told == end))
    }
}

/// The id and the body of a message, if it is complete.
fn message(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let (mut name, mut length) = (None, None);
    for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some((header, value)) = line.split_once(": ") {
            match header.to_ascii_lowercase().as_str() {
                "webhook-id" => name = Some(value.to_owned()),
                "content-length" => length = value.parse().ok(),
                _ => {}
            }
        }
    }
    let mut body = vec![0; length?];
    reader.read_exact(&mut body).ok()?;
    Some((name?, serde_json::from_slice(&body).ok()?))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
