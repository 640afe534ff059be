//! What is deleted, when, and how thoroughly.

use serde_json::json;

use super::*;
use crate::domain::Webhook;

#[test]
fn each_kind_of_job_is_kept_for_its_own_time() {
    let test = TestQueue::new();
    let kinds = [
        (JobKind::Run, 1800),
        (JobKind::RunSync { waited: false }, 60),
        (JobKind::RunSync { waited: true }, 300),
        (JobKind::Held, 1800),
    ];
    for (kind, seconds) in kinds {
        let id = test.submit_job(NewJob { kind, ..new_job("{}") });
        test.pass(Duration::from_secs(100));
        assert!(ended(test.claim().complete(vec![image("png")])));
        test.pass(Duration::from_millis(seconds * 1000 - 1));
        assert!(test.find(&id).is_some(), "{kind:?}");
        test.pass(Duration::from_millis(1));
        assert!(test.find(&id).is_none(), "{kind:?}");
        assert_eq!(test.run(test.queue.image(&endpoint(), &id, 0)).unwrap(), None);
        assert_eq!(test.cancel(&id), None);
        assert_eq!(test.retry(&id), None);
    }
    assert_eq!(test.queue.sweep().unwrap(), Swept { jobs: 4, clean: true });
    assert_eq!(test.counts(), JobCounts::default());
}

#[test]
fn a_job_that_has_ended_can_be_forgotten_at_once() {
    let test = TestQueue::new();
    let (other, id) = (test.submit("{}"), test.submit("{}"));
    assert!(ended(test.claim().complete(vec![image("png"), image("png")])));
    test.run(test.queue.forget(&endpoint(), &id)).unwrap();
    assert!(test.find(&id).is_some(), "it has not ended");
    assert!(ended(test.claim().complete(vec![image("png"), image("png")])));
    test.run(test.queue.forget(&EndpointId::new("other"), &id)).unwrap();
    assert!(test.find(&id).is_some(), "it belongs to another endpoint");
    test.run(test.queue.forget(&endpoint(), &id)).unwrap();
    assert!(test.find(&id).is_none() && test.find(&other).is_some());
    assert_eq!(test.run(test.queue.image(&endpoint(), &id, 1)).unwrap(), None);
    assert_eq!(test.counts().completed, 1);
    test.run(test.queue.forget(&endpoint(), &id)).unwrap();
    assert_eq!(test.queue.sweep().unwrap(), Swept { jobs: 0, clean: true }, "nothing is left to delete");
}

#[test]
fn a_job_expires_at_its_ttl_in_any_state() {
    let test = TestQueue::new();
    let policy = Policy { ttl: Duration::from_secs(10), ..Policy::default() };
    let mortal = || test.submit_job(NewJob { policy, ..new_job("{}") });
    let (done, running, queued) = (mortal(), mortal(), mortal());
    assert!(ended(test.claim().complete(vec![])));
    let job = test.claim();
    test.pass(Duration::from_secs(10));
    assert_eq!(job.stop_requested(), Some(StopReason::Gone));
    assert!([done, running, queued].iter().all(|id| test.find(id).is_none()));
    assert!(test.queue.claim(&endpoint(), "24").unwrap().is_none());
    assert_eq!(test.queue.sweep().unwrap().jobs, 3);
    assert!(!ended(job.complete(vec![image("too late")])));
}

#[test]
fn no_byte_of_a_deleted_job_is_left_in_the_files() {
    let test = TestQueue::new();
    let short = Policy { ttl: Duration::from_mins(1), ..Policy::default() };
    // Rows that stay between deleted ones make SQLite move cells, and leave copies behind.
    let (mut forgotten, mut kept) = (Vec::new(), Vec::new());
    for i in 0..240_usize {
        let lives = i % 7 == 3;
        let prompt = format!("<prompt-{i:04}>{}", "~".repeat(i * 37 % 3000));
        let id = test
            .submit_job(NewJob { policy: if lives { Policy::default() } else { short }, ..new_job(&prompt) });
        if i % 3 == 0 {
            let job = test.claim();
            let png = job.input().replace("prompt", "image").repeat(1 + i % 4);
            let prompts = DrawnPrompts { prompt: png.clone(), negative_prompt: String::new() };
            assert!(ended(
                job.complete(vec![image(&png), NewImage { prompts: Some(prompts), ..image(&png) }])
            ));
        }
        let markers = [format!("<prompt-{i:04}>"), format!("<image-{i:04}>")];
        if lives { kept.push((id, markers)) } else { forgotten.push((id, markers)) }
    }
    let left = |jobs: &[(JobId, [String; 2])]| -> usize {
        jobs.iter().flat_map(|(_, markers)| markers).filter(|marker| test.on_disk(marker)).count()
    };
    assert!(left(&forgotten) > forgotten.len());
    test.pass(Duration::from_mins(1));
    assert_eq!(test.queue.sweep().unwrap(), Swept { jobs: forgotten.len() as u64, clean: true });
    assert_eq!(left(&forgotten), 0);
    assert!(left(&kept) >= kept.len() && kept.iter().all(|(id, _)| test.find(id).is_some()));

    let size = || fs::metadata(test.dir.path().join("stablehand.db")).unwrap().len();
    let before = size();
    test.pass(Duration::from_hours(24));
    assert!(test.queue.sweep().unwrap().clean);
    assert_eq!((left(&forgotten), left(&kept)), (0, 0));
    assert!(size() < before / 2, "{before} bytes became {}", size());
}

#[test]
fn what_wildcards_became_is_told_and_forgotten_with_the_picture() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let prompts =
        DrawnPrompts { prompt: "<drawn-prompt>".to_owned(), negative_prompt: "<drawn-negative>".to_owned() };
    let drawn = NewImage { prompts: Some(prompts.clone()), ..image("fox") };
    assert!(ended(test.claim().complete(vec![drawn, image("fox")])));
    let told: Vec<_> = test.find(&id).unwrap().images.into_iter().map(|image| image.prompts).collect();
    assert_eq!(told, [Some(prompts), None]);
    assert!(test.on_disk("<drawn-prompt>"));
    test.pass(Duration::from_hours(1));
    assert!(test.queue.sweep().unwrap().clean);
    assert!(!test.on_disk("<drawn-prompt>") && !test.on_disk("<drawn-negative>"));
}

#[test]
fn messages_are_forgotten_with_their_job() {
    let test = TestQueue::new();
    let url = json!("https://receiver.example/?key=webhook-key");
    let submit = || {
        let webhook = Webhook::parse(&url, &json!(["start"])).unwrap();
        test.submit_job(NewJob { webhook, ..new_job("{}") })
    };
    let id = submit();
    assert!(ended(test.claim().complete(vec![])));
    // A receiver that does not answer: one message is under way, and one waits behind it.
    let under_way = test.queue.next_message(1).unwrap().unwrap();
    assert!(test.on_disk("webhook-key"));
    test.pass(Duration::from_hours(1));
    assert_eq!(test.queue.sweep().unwrap(), Swept { jobs: 1, clean: true });
    assert!(!test.on_disk("webhook-key"));
    assert!(!under_way.failed().unwrap(), "it is not tried again");
    drop(under_way);
    assert!(test.queue.next_message(1).unwrap().is_none());
    // The same if a client deletes the job.
    let kept = submit();
    assert!(ended(test.claim().complete(vec![])));
    test.run(test.queue.forget(&endpoint(), &kept)).unwrap();
    assert!(test.queue.next_message(1).unwrap().is_none());
    assert!(test.find(&id).is_none());
}

#[test]
fn jobs_expire_on_time_even_if_the_clock_is_set_back_between_two_starts() {
    let mut test = TestQueue::new();
    let id = test.submit("{}");
    assert!(ended(test.claim().complete(vec![])));
    test.pass(Duration::from_mins(10));
    test.queue.sweep().unwrap();
    (test.clock, test.now) = Clock::manual(START - Duration::from_hours(24));
    test.reopen();
    test.pass(Duration::from_mins(20) - Duration::from_millis(1));
    assert!(test.find(&id).is_some());
    test.pass(Duration::from_millis(1));
    assert!(test.find(&id).is_none());
    assert_eq!(test.queue.sweep().unwrap().jobs, 1);
    // With no job left, the machine's clock is used as it is.
    (test.clock, test.now) = Clock::manual(START - Duration::from_hours(24));
    test.reopen();
    assert_eq!(test.queue.now(), START - Duration::from_hours(24));
}
