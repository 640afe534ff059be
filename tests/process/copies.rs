//! Copies of the data folder at random moments of a busy server: what a power loss leaves. Each opens, and what was
//! acknowledged before the copy is in it.
//!
//! The server stands still while its folder is copied, so a copy is what the system had been told to write. Where a commit
//! came after the last one that is looked for, every second copy loses that, too: the end of the log is cut off or overwritten,
//! as by a disk that had not written it yet.
//!
//! `STABLEHAND_COPIES=200 cargo test --test process copies -- --ignored --nocapture` is the proof at its full size.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::helpers::{Server, data_dir, next, output, stablehand};
use crate::mix::{self, Mix};

const DATABASE: &str = "stablehand.db";
const LOG: &str = "stablehand.db-wal";
/// Every so many copies, the jobs in the copy are drawn to their end.
const DRAWN: u32 = 10;
/// The pictures of so many jobs are compared in every copy.
const NEWEST: usize = 10;

/// What clients know of a job: which of the mix it is, and how it has ended, if it has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    input: usize,
    end: Option<String>,
}

type Told = BTreeMap<String, Known>;

/// The two files of a database.
#[derive(PartialEq, Eq)]
struct Files {
    database: Vec<u8>,
    log: Vec<u8>,
}

impl Files {
    /// Reads them while the server stands still.
    fn of(server: &Server, dir: &Path) -> Self {
        server.send("-STOP");
        let read = |name: &str| fs::read(dir.join(name)).unwrap_or_default();
        let files = Self { database: read(DATABASE), log: read(LOG) };
        server.send("-CONT");
        files
    }

    /// Where the log's frames end: those with the same salts as its header.
    fn end_of_frames(&self) -> usize {
        const HEADER: usize = 32;
        const FRAME: usize = 24 + 4096;
        let Some(salts) = self.log.get(16..24) else { return 0 };
        let frames = self.log[HEADER..].chunks_exact(FRAME);
        HEADER + FRAME * frames.take_while(|frame| &frame[8..16] == salts).count()
    }

    /// Spoils what came into the log after `before`. False: there is nothing, or it is in the database already.
    fn lose_the_end(&mut self, before: &Self, random: &mut u64) -> bool {
        let acknowledged = before.end_of_frames();
        let is_same_log = self.log.get(..32) == before.log.get(..32) && self.database == before.database;
        if !is_same_log || self.end_of_frames() <= acknowledged {
            return false;
        }
        let kept = acknowledged + mix::below(self.log.len() - acknowledged, random);
        match next(random) % 3 {
            0 => self.log.truncate(kept),
            1 => self.log[kept..].fill(0),
            _ => self.log[kept..].iter_mut().for_each(|byte| *byte = next(random).to_le_bytes()[0]),
        }
        true
    }
}

#[test]
#[ignore = "takes minutes; .ci/run runs it"]
fn copies_of_a_busy_folder_open_with_all_that_was_acknowledged() {
    let copies = mix::number("STABLEHAND_COPIES", 20);
    let (mix, data) = (Mix::draw(), data_dir());
    let server = mix::start(data.path(), |_| {});
    let (told, stop, begun) = (Mutex::new(Told::new()), AtomicBool::new(false), Instant::now());
    let (mut random, mut spoilt) = (0xc0_ffee_u64, 0);
    thread::scope(|scope| {
        let stopped = Stopped(&stop);
        for (client, seed) in [submit, submit, cancel, look].into_iter().zip(1_u64..) {
            let (server, stop, told, mix) = (&server, &stop, &told, &mix);
            scope.spawn(move || {
                let mut random = seed << 32;
                while !stop.load(Ordering::Relaxed) {
                    client(server, told, mix, &mut random);
                    thread::sleep(Duration::from_millis(40 + next(&mut random) % 160));
                }
            });
        }
        for number in 1..=copies {
            thread::sleep(Duration::from_millis(next(&mut random) % 300));
            let acknowledged = locked(&told).clone();
            let before = Files::of(&server, data.path());
            thread::sleep(Duration::from_millis(next(&mut random) % 60));
            let mut files = Files::of(&server, data.path());
            if number % 2 == 0 && files.lose_the_end(&before, &mut random) {
                spoilt += 1;
            }
            check(&files, &acknowledged, &mix, number % DRAWN == 0);
        }
        drop(stopped);
    });
    let known = locked(&told).len();
    println!(
        "{copies} copies in {:.0} s, {spoilt} of them without the end of the log; {known} jobs acknowledged",
        begun.elapsed().as_secs_f64()
    );
    // Mostly nothing is written in so short a time, and there is no end to lose.
    assert!(spoilt > 0 || copies < 100, "no copy was without the end of the log");
    assert!(known > 0 && server.terminate().code() == Some(0));
}

/// Ends the clients, also where a check fails.
struct Stopped<'a>(&'a AtomicBool);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Opens a copy, and looks for everything that was acknowledged before it was made.
fn check(files: &Files, acknowledged: &Told, mix: &Mix, draws: bool) {
    let dir = data_dir();
    fs::write(dir.path().join(DATABASE), &files.database).unwrap();
    fs::write(dir.path().join(LOG), &files.log).unwrap();
    let mut command = stablehand(&["check", "--data-dir"]);
    command.arg(dir.path());
    let found = output(command);
    let (out, err) = (String::from_utf8_lossy(&found.stdout), String::from_utf8_lossy(&found.stderr));
    assert!(found.status.success(), "{out}{err}");

    let server = mix::start(dir.path(), |command| {
        command.env("STABLEHAND_WORKERS", if draws { "1" } else { "0" });
    });
    let found = states(&server);
    let is_new = |place: usize| place + NEWEST >= acknowledged.len();
    for (place, (id, known)) in acknowledged.iter().enumerate() {
        let state = found.get(id).unwrap_or_else(|| panic!("{id} is lost: {known:?}"));
        assert!(known.end.as_ref().is_none_or(|end| end == state), "{id}: first {known:?}, then {state}");
        if mix::is_open(state) && draws {
            mix.assert_drawn(known.input, &mix::wait(&server, id));
        } else if state == "COMPLETED" && is_new(place) {
            mix.assert_drawn(known.input, &mix::ask(&server, &format!("status/{id}")).unwrap());
        }
    }
    assert_eq!(server.terminate().code(), Some(0));
}

/// The state of every job.
fn states(server: &Server) -> BTreeMap<String, String> {
    let (mut states, mut path) = (BTreeMap::new(), "requests?limit=100".to_owned());
    loop {
        let page = mix::ask(server, &path).unwrap();
        for job in page["requests"].as_array().unwrap() {
            let text = |field: &str| job[field].as_str().unwrap().to_owned();
            states.insert(text("id"), text("status"));
        }
        match page["cursor"].as_str() {
            Some(cursor) => path = format!("requests?limit=100&cursor={cursor}"),
            None => return states,
        }
    }
}

fn submit(server: &Server, told: &Mutex<Told>, mix: &Mix, random: &mut u64) {
    if !mix::has_room(server) {
        return;
    }
    let input = if next(random).is_multiple_of(16) { mix.long(random) } else { mix.short(random) };
    if let Some(id) = server.submit(&mix.inputs[input]) {
        locked(told).insert(id, Known { input, end: None });
    }
}

fn cancel(server: &Server, told: &Mutex<Told>, _: &Mix, random: &mut u64) {
    let newest = locked(told).keys().next_back().cloned();
    if let Some(id) = newest.filter(|_| next(random).is_multiple_of(16)) {
        note(server.get(&format!("cancel/{id}")), told);
    }
}

/// Looks how the oldest jobs have ended that nobody has seen the end of.
fn look(server: &Server, told: &Mutex<Told>, _: &Mix, _: &mut u64) {
    let open: Vec<_> = locked(told)
        .iter()
        .filter(|(_, known)| known.end.is_none())
        .map(|(id, _)| id.clone())
        .take(4)
        .collect();
    for id in open {
        note(server.get(&format!("status/{id}")), told);
    }
}

fn note(answer: Option<serde_json::Value>, told: &Mutex<Told>) {
    let Some(body) = answer else { return };
    let (id, status) = (body["id"].as_str().unwrap(), body["status"].as_str().unwrap());
    if !mix::is_open(status)
        && let Some(known) = locked(told).get_mut(id)
    {
        known.end = Some(status.to_owned());
    }
}

fn locked(told: &Mutex<Told>) -> std::sync::MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
