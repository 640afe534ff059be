//! The worker with an engine that follows a script, a turn at a time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::domain::{ImagePlace, JobId, JobStatus, NewJob, Policy, S3Config};
use crate::fetch::tests::Server;
use crate::queue::WorkerCounts;
use crate::queue::tests::{TestQueue, endpoint, new_job};

const LONG: Duration = Duration::from_hours(1);

/// What the engines did, and how many were built.
#[derive(Default)]
struct Log {
    steps: Cell<u32>,
    built: Cell<u32>,
    pauses: RefCell<Vec<Duration>>,
}

/// Draws what the prompt says: "panic in step", "error in begin", anything else as a picture.
struct Scripted {
    log: Rc<Log>,
    capacity: usize,
}

struct Drawing {
    prompt: String,
    seed: u64,
    done: u32,
    steps: u32,
}

impl Scripted {
    fn act(prompt: &str, stage: &str) -> Result<(), String> {
        if prompt == format!("panic in {stage}") {
            std::panic::resume_unwind(Box::new("as the script says"));
        }
        if prompt == format!("error in {stage}") { Err("out of memory".to_owned()) } else { Ok(()) }
    }
}

impl Engine for Scripted {
    type Generation = Drawing;
    type Error = String;

    fn begin(&mut self, input: &GenerationInput, seed: u64) -> Result<Drawing, String> {
        Self::act(&input.prompt, "begin")?;
        Ok(Drawing { prompt: input.prompt.clone(), seed, done: 0, steps: input.num_inference_steps })
    }

    fn step(&mut self, batch: &mut [&mut Drawing]) -> Result<(), String> {
        self.log.steps.set(self.log.steps.get() + 1);
        for drawing in batch {
            Self::act(&drawing.prompt, "step")?;
            drawing.done += 1;
        }
        Ok(())
    }

    fn progress(&self, drawing: &Drawing) -> (u32, u32) {
        (drawing.done, drawing.steps)
    }

    fn preview(&mut self, drawing: &Drawing) -> Option<Vec<u8>> {
        Self::act(&drawing.prompt, "preview").ok()?;
        Some(format!("{} of {}", drawing.done, drawing.steps).into_bytes())
    }

    fn finish(&mut self, drawing: Drawing) -> Result<Vec<NewImage>, String> {
        Self::act(&drawing.prompt, "finish")?;
        Ok(vec![NewImage { seed: drawing.seed, png: Some(drawing.prompt.into_bytes()) }])
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn device(&self) -> String {
        "24".to_owned()
    }
}

struct Bench {
    test: TestQueue,
    stop: Stop,
    log: Rc<Log>,
}

impl Bench {
    fn new() -> Self {
        Self { test: TestQueue::new(), stop: Stop::default(), log: Rc::default() }
    }

    fn worker(&self, capacity: usize) -> Worker<Scripted, impl Fn() -> Result<Scripted, String> + use<>> {
        let log = Rc::clone(&self.log);
        let factory = move || {
            log.built.set(log.built.get() + 1);
            Ok(Scripted { log: Rc::clone(&log), capacity })
        };
        let mut worker =
            Worker::new(self.test.queue.clone(), assignment(), factory, self.stop.clone()).unwrap();
        let log = Rc::clone(&self.log);
        worker.pause = Box::new(move |pause| log.pauses.borrow_mut().push(pause));
        worker
    }

    fn submit(&self, prompt: &str, steps: u32) -> JobId {
        self.test.submit(&input(prompt, steps))
    }

    fn error(&self, id: &JobId) -> String {
        let job = self.test.find(id).unwrap();
        assert_eq!(job.status, JobStatus::Failed);
        job.error.unwrap()
    }

    fn completed(&self, id: &JobId) -> bool {
        self.test.status(id) == Some(JobStatus::Completed)
    }
}

fn assignment() -> Assignment {
    let fetcher = Fetcher::new("127.0.0.0/8".parse().unwrap()).unwrap();
    let rules = InputRules { takes_images: true, ..InputRules::default() };
    Assignment { endpoint: endpoint(), rules, fetcher }
}

fn input(prompt: &str, steps: u32) -> String {
    serde_json::json!({"prompt": prompt, "num_inference_steps": steps}).to_string()
}

fn work_off<E: Engine, F: Fn() -> Result<E, String>>(worker: &mut Worker<E, F>) {
    while worker.run_once() == Turn::Worked {}
}

#[test]
fn a_job_is_drawn_step_by_step_and_its_progress_told() {
    let bench = Bench::new();
    let id = bench.submit("a fox", 4);
    let mut worker = bench.worker(1);
    worker.run_once();
    assert_eq!(
        bench.test.queue.progress(&id),
        Some(Progress { step: 1, steps: 4, eta: Some(Duration::ZERO) })
    );
    bench.test.pass(Duration::from_secs(2));
    worker.run_once();
    let eta = Some(Duration::from_secs(2));
    assert_eq!(bench.test.queue.progress(&id), Some(Progress { step: 2, steps: 4, eta }));
    work_off(&mut worker);
    assert_eq!(bench.log.steps.get(), 4);
    let job = bench.test.find(&id).unwrap();
    assert_eq!((job.status, job.gpu.as_deref()), (JobStatus::Completed, Some("24")));
    let png = bench.test.run(bench.test.queue.image(&endpoint(), &id, 0)).unwrap();
    assert_eq!(png.as_deref(), Some(&b"a fox"[..]));
}

#[test]
fn jobs_are_stepped_together_up_to_the_engines_capacity() {
    let bench = Bench::new();
    let ids = [3, 5, 3].map(|steps| bench.submit("a fox", steps));
    work_off(&mut bench.worker(2));
    assert!(ids.iter().all(|id| bench.completed(id)));
    // The first two side by side; the third takes the first one's place: 3 + 3.
    assert_eq!(bench.log.steps.get(), 6);
}

#[test]
fn workers_are_counted_by_what_they_do() {
    let bench = Bench::new();
    let counts = || bench.test.queue.workers(&endpoint());
    assert_eq!(counts(), WorkerCounts::default());
    let mut worker = bench.worker(1);
    assert_eq!(counts(), WorkerCounts { idle: 1, ready: 1, ..Default::default() });
    bench.submit("a fox", 2);
    worker.run_once();
    assert_eq!(counts(), WorkerCounts { running: 1, ready: 1, ..Default::default() });
    work_off(&mut worker);
    assert_eq!(counts(), WorkerCounts { idle: 1, ready: 1, ..Default::default() });
    drop(worker);
    assert_eq!(counts(), WorkerCounts::default());
}

#[test]
fn a_cancelled_job_is_let_go_of_at_the_next_step() {
    let bench = Bench::new();
    let id = bench.submit("a fox", 50);
    let mut worker = bench.worker(1);
    worker.run_once();
    bench.test.cancel(&id);
    work_off(&mut worker);
    assert_eq!(bench.test.status(&id), Some(JobStatus::Cancelled));
    assert_eq!(bench.log.steps.get(), 2);
}

#[test]
fn a_job_that_works_too_long_times_out() {
    let bench = Bench::new();
    let policy = Policy { execution_timeout: Duration::from_secs(5), ..Policy::default() };
    let id = bench.test.submit_job(NewJob { policy, ..new_job(&input("a fox", 50)) });
    let mut worker = bench.worker(1);
    worker.run_once();
    bench.test.pass(Duration::from_secs(5));
    work_off(&mut worker);
    let job = bench.test.find(&id).unwrap();
    assert_eq!(job.status, JobStatus::TimedOut);
    assert!(job.error.unwrap().contains("5000 ms"));
}

#[test]
fn a_job_forgotten_while_it_runs_is_let_go_of() {
    let bench = Bench::new();
    let policy = Policy { ttl: Duration::from_secs(10), ..Policy::default() };
    bench.test.submit_job(NewJob { policy, ..new_job(&input("a fox", 50)) });
    let mut worker = bench.worker(1);
    worker.run_once();
    bench.test.pass(Duration::from_secs(10));
    work_off(&mut worker);
    assert_eq!(bench.log.steps.get(), 2);
    assert_eq!(bench.test.queue.sweep().unwrap().jobs, 1);
}

#[test]
fn a_failure_fails_its_job_in_a_sentence_and_the_next_one_works() {
    for stage in ["begin", "step", "finish"] {
        let bench = Bench::new();
        let failing = bench.submit(&format!("error in {stage}"), 2);
        let next = bench.submit("a fox", 2);
        work_off(&mut bench.worker(1));
        assert_eq!(bench.error(&failing), "The model failed: out of memory");
        assert!(bench.completed(&next), "after an error in {stage}");
        assert_eq!(bench.log.built.get(), 1);
    }
}

#[test]
fn a_panic_fails_its_job_and_the_next_one_is_drawn_by_a_new_engine() {
    for stage in ["begin", "step", "preview", "finish"] {
        let bench = Bench::new();
        let panicking = bench.submit(&format!("panic in {stage}"), 2);
        let _follower = bench.test.queue.follow(&endpoint(), &panicking);
        let next = bench.submit("a fox", 2);
        let mut worker = bench.worker(1);
        for _ in 0..8 {
            worker.run_once();
        }
        assert_eq!(bench.error(&panicking), PANICKED);
        assert!(bench.completed(&next), "after a panic in {stage}");
        assert_eq!(bench.log.built.get(), 2);
    }
}

#[test]
fn a_panic_over_one_job_spares_those_beside_it() {
    for stage in ["begin", "finish"] {
        let bench = Bench::new();
        let beside = bench.submit("a fox", 4);
        let panicking = bench.submit(&format!("panic in {stage}"), 2);
        let mut worker = bench.worker(2);
        for _ in 0..12 {
            worker.run_once();
        }
        assert_eq!(bench.error(&panicking), PANICKED);
        assert!(bench.completed(&beside), "beside a panic in {stage}");
    }
}

#[test]
fn an_input_that_no_longer_fits_fails_in_its_own_words() {
    let bench = Bench::new();
    let id = bench.test.submit(r#"{"prompt": "a fox", "width": 70}"#);
    work_off(&mut bench.worker(1));
    assert!(bench.error(&id).starts_with("width does not meet the constraints."));
}

#[test]
fn within_the_grace_a_job_is_finished_and_no_other_begun() {
    let bench = Bench::new();
    let (running, queued) = (bench.submit("a fox", 5), bench.submit("a fox", 5));
    let mut worker = bench.worker(1);
    worker.run_once();
    bench.stop.stop(LONG);
    work_off(&mut worker);
    assert_eq!(worker.run_once(), Turn::Stopped);
    assert!(bench.completed(&running));
    assert_eq!(bench.test.status(&queued), Some(JobStatus::InQueue));
}

#[test]
fn after_the_grace_a_job_goes_back_into_the_queue() {
    let bench = Bench::new();
    let id = bench.submit("a fox", 5);
    let mut worker = bench.worker(1);
    worker.run_once();
    bench.stop.stop(Duration::ZERO);
    assert_eq!(worker.run_once(), Turn::Stopped);
    assert_eq!(bench.test.status(&id), Some(JobStatus::InQueue));
}

#[test]
fn pictures_are_not_lost_to_a_full_disk() {
    let bench = Bench::new();
    let id = bench.submit(&"x".repeat(60_000), 1);
    let mut worker = bench.worker(1);
    let (queue, log) = (bench.test.queue.clone(), Rc::clone(&bench.log));
    queue.provoke("pragma max_page_count = 1");
    worker.pause = Box::new(move |pause| {
        log.pauses.borrow_mut().push(pause);
        if log.pauses.borrow().len() == 3 {
            queue.provoke("pragma max_page_count = 1000000");
        }
    });
    work_off(&mut worker);
    assert_eq!(*bench.log.pauses.borrow(), [100, 200, 400].map(Duration::from_millis));
    assert!(bench.completed(&id));
}

#[test]
fn pictures_that_outlive_their_job_are_given_up() {
    let bench = Bench::new();
    let policy = Policy { ttl: Duration::from_secs(10), ..Policy::default() };
    bench.test.submit_job(NewJob { policy, ..new_job(&input(&"x".repeat(60_000), 1)) });
    let mut worker = bench.worker(1);
    bench.test.queue.provoke("pragma max_page_count = 1");
    let now = std::sync::Arc::clone(&bench.test.now);
    worker.pause = Box::new(move |pause| {
        let ms = i64::try_from(pause.as_millis()).unwrap();
        now.fetch_add(ms, std::sync::atomic::Ordering::SeqCst);
    });
    work_off(&mut worker);
}

#[test]
fn an_engine_that_cannot_be_built_is_told_to_the_owner() {
    let test = TestQueue::new();
    let (tell, told) = std::sync::mpsc::channel();
    let factory = || Err::<Scripted, _>("no such model".to_owned());
    let ready = move |outcome| tell.send(outcome).unwrap();
    let thread = spawn(test.queue.clone(), assignment(), factory, Stop::default(), ready).unwrap();
    assert_eq!(told.recv().unwrap(), Err("no such model".to_owned()));
    thread.join().unwrap();
    assert_eq!(test.queue.workers(&endpoint()), WorkerCounts::default());
}

#[test]
fn a_thread_works_when_there_is_work_and_stops_when_asked() {
    let test = TestQueue::new();
    let stop = Stop::default();
    let factory = || Ok(Scripted { log: Rc::default(), capacity: 1 });
    let thread = spawn(test.queue.clone(), assignment(), factory, stop.clone(), drop).unwrap();
    for _ in 0..3 {
        let id = test.submit(&input("a fox", 3));
        let job = test.run(test.queue.wait(&endpoint(), &id, LONG)).unwrap().unwrap();
        assert_eq!(job.status, JobStatus::Completed);
    }
    stop.stop(LONG);
    test.queue.wake_workers();
    thread.join().unwrap();
}

const STORED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n";

impl Bench {
    /// A job whose pictures go to a bucket on `server`.
    fn submit_for_bucket(&self, server: &Server, policy: Policy) -> JobId {
        let config = S3Config::parse(&serde_json::json!({
            "accessId": "id", "accessSecret": "secret", "bucketName": "foxes",
            "endpointUrl": format!("http://{}", server.address),
        }));
        self.test.submit_job(NewJob { s3_config: config.unwrap(), policy, ..new_job(&input("a fox", 1)) })
    }
}

/// Works until the job's errand is over too.
fn work_off_with_errands<E: Engine, F: Fn() -> Result<E, String>>(worker: &mut Worker<E, F>) {
    worker.errands.pauses = [Duration::ZERO; 2];
    loop {
        match worker.run_once() {
            Turn::Worked => {}
            Turn::Waiting => thread::park_timeout(LOOK),
            Turn::Idle | Turn::Stopped => return,
        }
    }
}

#[test]
fn pictures_go_to_the_clients_bucket_and_nowhere_else() {
    let (bench, server) = (Bench::new(), Server::answering(&[STORED.to_owned()]));
    let id = bench.submit_for_bucket(&server, Policy::default());
    work_off_with_errands(&mut bench.worker(1));
    let job = bench.test.find(&id).unwrap();
    assert_eq!(job.status, JobStatus::Completed);
    let base = format!("http://{}/foxes/{id}/0.png?", server.address);
    let ImagePlace::Bucket(url) = &job.images[0].place else { panic!("{job:?}") };
    assert!(url.starts_with(&base));
    assert_eq!(bench.test.run(bench.test.queue.image(&endpoint(), &id, 0)).unwrap(), None);
    let asked = server.asked();
    assert!(asked[0].starts_with(&format!("PUT /foxes/{id}/0.png?")), "{}", asked[0]);
    assert!(asked[0].ends_with("a fox") && asked[0].contains("content-type: image/png\r\n"), "{}", asked[0]);
}

#[test]
fn a_bucket_that_is_busy_is_tried_again_and_not_for_ever() {
    let bench = Bench::new();
    let server = Server::answering(&[BUSY, BUSY, STORED].map(str::to_owned));
    let id = bench.submit_for_bucket(&server, Policy::default());
    work_off_with_errands(&mut bench.worker(1));
    assert!(bench.completed(&id));

    let server = Server::answering(&[BUSY.to_owned()]);
    let id = bench.submit_for_bucket(&server, Policy::default());
    work_off_with_errands(&mut bench.worker(1));
    assert_eq!(
        bench.error(&id),
        "The pictures could not be stored in the bucket foxes: 127.0.0.1 answered with HTTP 503."
    );
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn a_bucket_that_refuses_fails_the_job_at_once_and_says_why() {
    let bench = Bench::new();
    let error = "<Error><Code>AccessDenied</Code></Error>";
    let refusal = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{error}", error.len());
    let server = Server::answering(&[refusal]);
    let id = bench.submit_for_bucket(&server, Policy::default());
    work_off_with_errands(&mut bench.worker(1));
    assert_eq!(
        bench.error(&id),
        "The pictures could not be stored in the bucket foxes: 127.0.0.1 answered with HTTP 403 (AccessDenied)."
    );
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn jobs_beside_a_slow_bucket_go_on_and_the_slow_one_may_be_cancelled() {
    let bench = Bench::new();
    // Reads the request and never answers.
    let server = Server::start(|stream| drop(std::io::Read::read(stream, &mut [0])));
    let slow = bench.submit_for_bucket(&server, Policy::default());
    let next = bench.submit("a fox", 2);
    let mut worker = bench.worker(1);
    work_off(&mut worker);
    assert!(bench.completed(&next));
    assert_eq!(bench.test.status(&slow), Some(JobStatus::InProgress));
    assert_eq!(worker.run_once(), Turn::Waiting);
    bench.test.cancel(&slow);
    assert_eq!(worker.run_once(), Turn::Idle);
    assert_eq!(bench.test.status(&slow), Some(JobStatus::Cancelled));
}

#[test]
fn a_job_on_an_errand_times_out_and_goes_back_into_the_queue_at_a_stop() {
    let bench = Bench::new();
    let server = Server::start(|stream| drop(std::io::Read::read(stream, &mut [0])));
    let policy = Policy { execution_timeout: Duration::from_secs(5), ..Policy::default() };
    let id = bench.submit_for_bucket(&server, policy);
    let mut worker = bench.worker(1);
    work_off(&mut worker);
    bench.test.pass(Duration::from_secs(5));
    assert_eq!(worker.run_once(), Turn::Idle);
    assert_eq!(bench.test.status(&id), Some(JobStatus::TimedOut));

    let id = bench.submit_for_bucket(&server, Policy::default());
    work_off(&mut worker);
    bench.stop.stop(LONG);
    assert_eq!(worker.run_once(), Turn::Waiting, "the grace is not over");
    bench.stop.stop(Duration::ZERO);
    assert_eq!(worker.run_once(), Turn::Stopped);
    assert_eq!(bench.test.status(&id), Some(JobStatus::InQueue));
}

#[test]
fn a_picture_named_by_its_address_is_fetched_before_the_work_begins() {
    let bench = Bench::new();
    let submit = |server: &Server| {
        let address = format!("http://{}/picture.png", server.address);
        let input = serde_json::json!({"prompt": "a dog", "init_image": address, "num_inference_steps": 1});
        bench.test.submit(&input.to_string())
    };
    let dot = crate::diffusion::image::encode_png(
        &crate::diffusion::image::RgbImage { width: 1, height: 1, pixels: vec![255; 3] },
        &[],
    );
    let dot = dot.unwrap();
    let picture = Server::start(move |stream| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", dot.len());
        let _ = std::io::Write::write_all(stream, &[head.as_bytes(), &dot].concat());
    });
    let page = Server::answering(&["HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>".to_owned()]);
    let gone = Server::answering(&["HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned()]);
    let [fetched, page, gone] = [submit(&picture), submit(&page), submit(&gone)];
    work_off(&mut bench.worker(1));
    assert_eq!(bench.test.status(&fetched), Some(JobStatus::Completed));
    let error = |id| bench.test.find(id).unwrap().error.unwrap();
    assert!(
        error(&page).starts_with("init_image cannot be used. Its bytes are no picture"),
        "{}",
        error(&page)
    );
    assert_eq!(error(&gone), "init_image could not be fetched: 127.0.0.1 answered with HTTP 404.");
}
