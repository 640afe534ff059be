//! What operations cost behind a long queue, and what requests cost during a sweep: `cargo bench --bench queue`.
//! `ROWS=1000000` measures a million rows; the sweep then needs about 5 GB on the disk.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use stablehand::domain::{Clock, EndpointId, Job, JobId, JobStatus, NewImage, NewJob, Timestamp};
use stablehand::metrics::Metrics;
use stablehand::queue::{ClaimedJob, JobFilter, JobQueue, QueueSettings};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const ROWS: u32 = 100_000;
const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn main() {
    let rows = std::env::var("ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(ROWS);
    for queued in [0, rows] {
        operations(queued);
    }
    sweep(rows);
}

/// Operations one at a time, behind `queued` jobs.
fn operations(queued: u32) {
    let runtime = runtime();
    let data = TempDir::new().expect("a folder");
    fill(data.path(), queued, JobStatus::InQueue);
    let queue = open(data.path());
    println!("behind {queued} queued jobs:");
    let submit = || {
        runtime.block_on(queue.submit(new_job())).expect("it is queued");
    };
    report("submit", (0..500).map(|_| timed(submit)).collect());
    let mut claimed = Vec::new();
    let claims = (0..200)
        .map(|_| timed(|| claimed.push(queue.claim(&endpoint(), "cpu").expect("it claims").expect("a job"))));
    report("claim", claims.collect());
    for kib in [64, 320, 1280] {
        let save = |job: &mut ClaimedJob| {
            job.save(vec![1; kib << 10]);
            while job.is_saving() {
                thread::yield_now();
            }
        };
        report(&format!("save {kib} KiB"), claimed.iter_mut().map(|job| timed(|| save(job))).collect());
    }
    let image = || NewImage { seed: 1, png: Some(vec![1; 20_000]), prompts: None };
    report(
        "complete",
        claimed.into_iter().map(|job| timed(|| assert!(job.complete(vec![image()]).is_ok()))).collect(),
    );
    let list = |status| {
        let filter = JobFilter { status, before: None, limit: 20 };
        runtime.block_on(queue.list(&endpoint(), filter)).expect("it lists");
    };
    report("list", (0..200).map(|_| timed(|| list(None))).collect());
    report("list completed", (0..200).map(|_| timed(|| list(Some(JobStatus::Completed)))).collect());
}

/// Submits and finds jobs while `expired` jobs are swept.
fn sweep(expired: u32) {
    let data = TempDir::new().expect("a folder");
    fill(data.path(), expired, JobStatus::Completed);
    let queue = open(data.path());
    let known = runtime().block_on(queue.submit(new_job())).expect("it is queued").id;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = [true, false]
        .map(|submits| {
            let (queue, over, known) = (queue.clone(), Arc::clone(&over), known.clone());
            thread::spawn(move || {
                let (runtime, mut times) = (runtime(), Vec::new());
                while !over.load(Ordering::Relaxed) {
                    times.push(timed(|| runtime.block_on(request(&queue, &known, submits))));
                    thread::sleep(Duration::from_millis(2));
                }
                times
            })
        })
        .into();
    let started = Instant::now();
    let swept = queue.sweep().expect("it sweeps");
    let took = started.elapsed();
    over.store(true, Ordering::Relaxed);
    println!("while {} expired jobs are swept in {:.1} s:", swept.jobs, took.as_secs_f64());
    for (name, client) in ["submit", "find"].into_iter().zip(clients) {
        report(name, client.join().expect("a client"));
    }
}

async fn request(queue: &JobQueue, known: &JobId, submits: bool) {
    if submits {
        queue.submit(new_job()).await.expect("it is queued");
    } else {
        queue.find(&endpoint(), known).await.expect("it reads").expect("a job");
    }
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1000.0;
    let (median, p99, worst) = (at(50), at(99), at(100));
    println!("  {name:<16} {median:8.2} ms   p99 {p99:8.2} ms   worst {worst:8.2} ms   of {}", times.len());
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn open(dir: &Path) -> JobQueue {
    let settings = QueueSettings { queue_limit: u64::MAX >> 1, ..QueueSettings::default() };
    let (clock, _) = Clock::manual(NOW);
    let describe = Arc::new(|job: Job, _, _| job.id.to_string());
    JobQueue::open(dir, settings, clock, describe, Metrics::default()).expect("it opens")
}

fn endpoint() -> EndpointId {
    EndpointId::default()
}

fn new_job() -> NewJob {
    NewJob::run(endpoint(), r#"{"prompt": "a red fox in the snow"}"#, 1)
}

/// Rows as the queue would write them, each with an input; a day old if they have ended.
fn fill(dir: &Path, rows: u32, status: JobStatus) {
    let queue = open(dir);
    queue.close();
    drop(queue);
    let db = Connection::open(dir.join("stablehand.db")).expect("the database opens");
    db.execute_batch("pragma synchronous = off; pragma cache_size = -200000; begin").expect("it begins");
    let finished = status.is_final().then_some(NOW.0 - 86_400_000);
    for i in 0..rows {
        db.prepare_cached("insert into contents (id, bytes) values (?, zeroblob(4573))")
            .and_then(|mut insert| insert.execute([i]))
            .expect("a content");
        db.prepare_cached(
            "insert into jobs (id, endpoint, status, low_priority, execution_timeout_ms, ttl_ms, retention_ms, seed,
                               created_at, started_at, finished_at, input)
             values (?, ?, ?, 0, 600000, 864000000, 1800000, 1, ?, ?, ?, ?)",
        )
        .and_then(|mut insert| {
            let id = format!("{i:08x}-0000-7000-8000-{i:012x}");
            let created = NOW.0 - 86_400_000;
            insert.execute(params![id, endpoint().as_str(), status.as_str(), created, finished, finished, i])
        })
        .expect("a job");
    }
    db.execute_batch("commit").expect("it commits");
    drop(db);
    // Otherwise the first fsync that is measured pays for all of this.
    File::open(dir.join("stablehand.db")).and_then(|file| file.sync_all()).expect("it is on the disk");
}
