//! Deliveries from a real outbox, to a receiver that answers what the test tells it to.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::domain::{JobId, NewJob, Policy, Progress, Webhook};
use crate::queue::tests::{TestQueue, new_job};
use crate::queue::{BETWEEN_TRIES, ClaimedJob};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a receiver got: URL, headers, body.
type Request = (String, Vec<(String, String)>, String);

struct Bench {
    test: TestQueue,
    got: Arc<Mutex<Vec<Request>>>,
    /// Its answers, in order; after the last, 200.
    answers: Arc<Mutex<VecDeque<Result<u16, String>>>>,
}

impl Bench {
    fn new() -> Self {
        Self { test: TestQueue::new(), got: Arc::default(), answers: Arc::default() }
    }

    fn webhooks(&self) -> Webhooks {
        let (got, answers) = (Arc::clone(&self.got), Arc::clone(&self.answers));
        let post: Post = Arc::new(move |url, headers, body| {
            let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            got.lock().unwrap().push((url.as_str().to_owned(), headers.collect(), body.to_owned()));
            answers.lock().unwrap().pop_front().unwrap_or(Ok(200))
        });
        Webhooks::new(self.test.queue.clone(), SECRET.parse().unwrap(), post, 8, Metrics::default())
    }

    fn deliver(&self) -> Option<Delivery> {
        self.webhooks().deliver_once(&Stop::default()).unwrap()
    }

    /// Delivers all messages that are due, and returns their bodies.
    fn delivered(&self) -> Vec<String> {
        while self.deliver().is_some() {}
        self.got.lock().unwrap().drain(..).map(|(_, _, body)| body).collect()
    }

    fn submit(&self, events: &[&str]) -> JobId {
        let webhook = Webhook::parse(&json!("https://receiver.example/?key=secret"), &json!(events));
        self.test.submit_job(NewJob { webhook: webhook.unwrap(), ..new_job("{}") })
    }
}

fn end(job: ClaimedJob, end: impl FnOnce(ClaimedJob) -> crate::queue::Ended) {
    assert!(end(job).is_ok_and(|effect| effect));
}

#[test]
fn every_end_is_reported_once() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.submit(&[]);
    }
    end(bench.test.claim(), |job| job.complete(vec![]));
    end(bench.test.claim(), |job| job.fail("No."));
    end(bench.test.claim(), ClaimedJob::time_out);
    let id = bench.submit(&[]);
    bench.test.cancel(&id);
    bench.test.cancel(&id);
    assert_eq!(bench.delivered(), ["COMPLETED", "FAILED", "TIMED_OUT", "CANCELLED"]);
    let id = bench.submit(&[]);
    for _ in 0..3 {
        bench.test.claim().abandon();
        bench.test.reopen();
    }
    assert_eq!(bench.delivered(), ["FAILED"], "given up at the start");
    assert!(bench.test.find(&id).is_some());
    bench.test.submit("{}");
    end(bench.test.claim(), |job| job.complete(vec![]));
    assert_eq!(bench.delivered().len(), 0, "a job without a webhook sends no message");
}

#[test]
fn start_and_progress_are_reported_if_asked_for() {
    let bench = Bench::new();
    bench.submit(&["start", "progress"]);
    let job = bench.test.claim();
    let publish = |step| {
        job.publish(Progress { step, steps: 9, eta: None }, None);
        bench.test.submit("{}"); // written after it, so by now it is
    };
    publish(0);
    assert_eq!(bench.delivered(), ["IN_PROGRESS"]);
    publish(1);
    publish(2);
    assert_eq!(bench.delivered(), ["IN_PROGRESS 1/9"], "not again within the second");
    bench.test.pass(Duration::from_secs(1));
    publish(3);
    bench.test.pass(Duration::from_secs(1));
    publish(4);
    assert_eq!(bench.delivered(), ["IN_PROGRESS 4/9"], "the newer message replaces the older one");
    bench.test.pass(Duration::from_secs(1));
    publish(5);
    end(job, |job| job.complete(vec![]));
    assert_eq!(bench.delivered(), ["COMPLETED"]);
}

#[test]
fn a_message_keeps_its_name_and_is_signed_at_every_try() {
    let bench = Bench::new();
    let id = bench.submit(&[]);
    bench.test.cancel(&id);
    bench.answers.lock().unwrap().push_back(Ok(500));
    assert_eq!(bench.deliver(), Some(Delivery::Failed));
    bench.test.pass(BETWEEN_TRIES);
    assert_eq!(bench.deliver(), Some(Delivery::Arrived));
    let got = bench.got.lock().unwrap();
    let name = format!("msg_{id}_1");
    for ((url, headers, body), timestamp) in got.iter().zip([1_700_000_000, 1_700_000_010]) {
        assert_eq!((url.as_str(), body.as_str()), ("https://receiver.example/?key=secret", "CANCELLED"));
        let secret: WebhookSecret = SECRET.parse().unwrap();
        let wanted = [
            ("webhook-id", name.clone()),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-signature", secret.sign(&name, timestamp, "CANCELLED")),
        ];
        assert_eq!(*headers, wanted.map(|(name, value)| (name.to_owned(), value)));
    }
    assert_eq!(got.len(), 2);
}

#[test]
fn a_message_not_answered_with_200_is_tried_three_times_ten_seconds_apart() {
    let bench = Bench::new();
    let id = bench.submit(&[]);
    bench.test.cancel(&id);
    let refusals = [Ok(204), Err("receiver.example cannot be reached".to_owned()), Ok(302)];
    bench.answers.lock().unwrap().extend(refusals);
    for outcome in [Delivery::Failed, Delivery::Failed, Delivery::GivenUp] {
        assert_eq!(bench.deliver(), Some(outcome));
        assert_eq!(bench.deliver(), None);
        bench.test.pass(Duration::from_millis(9_999));
        assert_eq!(bench.deliver(), None);
        bench.test.pass(Duration::from_millis(1));
    }
    assert_eq!(bench.deliver(), None);
}

#[test]
fn a_message_under_way_when_the_process_dies_is_delivered_by_the_next_process() {
    let mut bench = Bench::new();
    let id = bench.submit(&[]);
    bench.test.cancel(&id);
    bench.answers.lock().unwrap().push_back(Ok(500));
    assert_eq!(bench.deliver(), Some(Delivery::Failed));
    bench.test.pass(BETWEEN_TRIES);
    drop(bench.test.queue.next_message(8).unwrap().unwrap());
    bench.test.reopen();
    let message = bench.test.queue.next_message(8).unwrap().unwrap();
    assert_eq!((message.number(), message.body()), (2, "CANCELLED"));
}

#[test]
fn a_message_outlives_a_retry_but_not_its_job() {
    let bench = Bench::new();
    bench.submit(&[]);
    let short = Policy { ttl: Duration::from_secs(10), ..Policy::default() };
    let webhook = Webhook::parse(&json!("https://receiver.example/"), &json!(null)).unwrap();
    let mortal = bench.test.submit_job(NewJob { policy: short, webhook, ..new_job("{}") });
    let job = bench.test.claim();
    let id = job.id().clone();
    end(job, |job| job.fail("No."));
    bench.test.cancel(&mortal);
    assert_eq!(bench.test.retry(&id), Some(Ok(())));
    bench.test.pass(Duration::from_secs(10));
    assert_eq!(bench.test.queue.sweep().unwrap().jobs, 1);
    assert_eq!(bench.delivered(), ["FAILED"]);
}

#[test]
fn nothing_is_left_of_a_delivered_message() {
    let bench = Bench::new();
    let id = bench.submit(&[]);
    bench.test.cancel(&id);
    assert!(bench.test.on_disk("CANCELLED") && bench.test.on_disk("key=secret"));
    assert_eq!(bench.delivered(), ["CANCELLED"]);
    bench.test.pass(Duration::from_hours(24));
    assert!(bench.test.queue.sweep().unwrap().clean);
    assert!(!bench.test.on_disk("key=secret"));
}

#[test]
fn a_slow_receiver_does_not_delay_the_others() {
    let bench = Bench::new();
    let submit = |url: &str| {
        let webhook = Webhook::parse(&json!(url), &json!(null)).unwrap();
        let id = bench.test.submit_job(NewJob { webhook, ..new_job("{}") });
        bench.test.cancel(&id);
    };
    for i in 0..5 {
        submit(&format!("https://slow.example/{i}"));
    }
    submit("https://quick.example/");
    let mut hosts = Vec::new();
    let mut under_way = Vec::new();
    while let Some(message) = bench.test.queue.next_message(4).unwrap() {
        hosts.push(message.url().host().to_owned());
        under_way.push(message);
    }
    // Neither has answered yet.
    assert_eq!(hosts, ["slow.example", "quick.example"]);
    under_way.remove(0).arrived().unwrap();
    while let Some(message) = bench.test.queue.next_message(2).unwrap() {
        assert_eq!(message.url().host(), "slow.example");
        under_way.push(message);
    }
    assert_eq!(under_way.len(), 3);
    under_way.clear();
    assert_eq!(bench.delivered().len(), 5);
}

#[test]
fn receivers_that_hang_are_backed_off_alone() {
    let bench = Bench::new();
    let submit = |url: &str| {
        let webhook = Webhook::parse(&json!(url), &json!(null)).unwrap();
        let id = bench.test.submit_job(NewJob { webhook, ..new_job("{}") });
        bench.test.cancel(&id);
    };
    for i in 0..20 {
        submit(&format!("https://hangs.example/{i}"));
        submit(&format!("https://hangs-too.example/{i}"));
    }
    for host in ["hangs.example", "hangs-too.example"] {
        let message = bench.test.queue.next_message(4).unwrap().unwrap();
        assert_eq!(message.url().host(), host);
        assert!(message.failed().unwrap());
    }
    assert!(bench.test.queue.next_message(4).unwrap().is_none(), "both rest");
    submit("https://quick.example/");
    assert_eq!(bench.delivered().len(), 1);
}
