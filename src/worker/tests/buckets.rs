//! Jobs whose pictures are uploaded to the client's bucket.

use super::*;
use crate::domain::{ImagePlace, S3Config};

const STORED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n";

impl Bench {
    /// A job whose pictures go to a bucket on `server`.
    fn submit_for_bucket(&self, server: &Server, policy: Policy) -> JobId {
        self.submit_prompt_for_bucket("a fox", server, policy)
    }

    fn submit_prompt_for_bucket(&self, prompt: &str, server: &Server, policy: Policy) -> JobId {
        let config = S3Config::parse(&serde_json::json!({
            "accessId": "id", "accessSecret": "secret", "bucketName": "foxes",
            "endpointUrl": format!("http://{}", server.address),
        }));
        self.test.submit_job(NewJob { s3_config: config.unwrap(), policy, ..new_job(&input(prompt, 1)) })
    }
}

#[test]
fn pictures_are_stored_in_the_clients_bucket_and_nowhere_else() {
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
fn a_warning_waits_for_the_upload() {
    let (bench, server) = (Bench::new(), Server::answering(&[STORED.to_owned()]));
    let id = bench.submit_prompt_for_bucket("warn", &server, Policy::default());
    work_off_with_errands(&mut bench.worker(1));
    assert_eq!(bench.test.find(&id).unwrap().warnings, ["it is a script"]);
}

#[test]
fn an_upload_to_a_busy_bucket_is_tried_three_times() {
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
fn a_bucket_that_refuses_fails_the_job_at_once_with_its_reason() {
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
fn a_slow_bucket_delays_no_other_job_and_its_job_can_be_cancelled() {
    let bench = Bench::new();
    // Reads the request and never answers.
    let server = Server::start(|stream| drop(std::io::Read::read(stream, &mut [0])));
    let slow = bench.submit_for_bucket(&server, Policy::default());
    let next = bench.submit("a fox", 2);
    let mut worker = bench.worker(1);
    work_off(&mut worker);
    assert!(bench.completed(&next));
    assert_eq!(bench.test.status(&slow), Some(JobStatus::InProgress));
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    bench.test.cancel(&slow);
    assert_eq!(worker.tick(), TickOutcome::Idle);
    assert_eq!(bench.test.status(&slow), Some(JobStatus::Cancelled));
}

#[test]
fn a_job_on_an_errand_can_time_out_and_goes_back_into_the_queue_at_a_stop() {
    let bench = Bench::new();
    let server = Server::start(|stream| drop(std::io::Read::read(stream, &mut [0])));
    let policy = Policy { execution_timeout: Duration::from_secs(5), ..Policy::default() };
    let id = bench.submit_for_bucket(&server, policy);
    let mut worker = bench.worker(1);
    work_off(&mut worker);
    bench.test.pass(Duration::from_secs(5));
    assert_eq!(worker.tick(), TickOutcome::Idle);
    assert_eq!(bench.test.status(&id), Some(JobStatus::TimedOut));

    let id = bench.submit_for_bucket(&server, Policy::default());
    work_off(&mut worker);
    bench.stop.stop(LONG);
    assert_eq!(worker.tick(), TickOutcome::Waiting, "the grace is not over");
    bench.stop.stop(Duration::ZERO);
    assert_eq!(worker.tick(), TickOutcome::Stopped);
    assert_eq!(bench.test.status(&id), Some(JobStatus::InQueue));
}
