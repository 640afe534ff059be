//! Jobs whose pictures go to the client's bucket.

use super::*;

fn for_bucket() -> NewJob {
    let config = crate::domain::S3Config::parse(&serde_json::json!({
        "accessId": "AKIAIOSFODNN7EXAMPLE", "accessSecret": "wJalrXUtnFEMI-K7MDENG", "bucketName": "foxes",
        "endpointUrl": "https://s3.example",
    }));
    NewJob { s3_config: config.unwrap(), ..new_job("{}") }
}

/// How often `text` lies in the data folder.
fn traces(test: &TestQueue, secret: &str) -> usize {
    let files =
        std::fs::read_dir(test.dir.path()).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    files.map(|bytes| bytes.windows(secret.len()).filter(|window| *window == secret.as_bytes()).count()).sum()
}

#[test]
fn a_buckets_keys_are_forgotten_as_soon_as_the_job_has_ended() {
    type EndOf = fn(&TestQueue, ClaimedJob);
    let ends: [EndOf; 4] = [
        |_, job| assert!(ended(job.complete_stored(Vec::new()))),
        |_, job| assert!(ended(job.fail("so"))),
        |_, job| assert!(ended(job.time_out())),
        |test, job| {
            test.cancel(job.id());
            job.abandon();
        },
    ];
    for end in ends {
        let test = TestQueue::new();
        let id = test.submit_job(for_bucket());
        let job = test.claim();
        assert_eq!(job.s3_config(), for_bucket().s3_config.as_ref());
        assert!(ended(job.release()), "and needs them again");
        let job = test.claim();
        assert_eq!(job.s3_config(), for_bucket().s3_config.as_ref());
        assert!(traces(&test, "wJalrXUtnFEMI-K7MDENG") > 0);
        end(&test, job);
        test.queue.sweep().unwrap();
        assert_eq!(traces(&test, "wJalrXUtnFEMI-K7MDENG"), 0);
        assert_eq!(traces(&test, "AKIAIOSFODNN7EXAMPLE"), 0);
        assert!(test.find(&id).is_some());
    }
}

#[test]
fn a_job_whose_bucket_is_forgotten_is_not_tried_again() {
    let test = TestQueue::new();
    let id = test.submit_job(for_bucket());
    assert!(ended(test.claim().fail("so")));
    assert_eq!(test.retry(&id), Some(Err(NoRetry::NoBucket)));
    assert_eq!(test.status(&id), Some(JobStatus::Failed));
}

#[test]
fn a_picture_in_a_bucket_is_known_by_its_url() {
    let test = TestQueue::new();
    let id = test.submit_job(for_bucket());
    let url = "https://s3.example/foxes/0.png?X-Amz-Signature=0123".to_owned();
    assert!(ended(test.claim().complete_stored(vec![
        StoredImage { seed: 7, url: Some(url.clone()) },
        StoredImage { seed: 8, url: None }
    ])));
    let places = [ImagePlace::Bucket(url), ImagePlace::Withheld];
    assert_eq!(
        test.find(&id).unwrap().images.into_iter().map(|image| image.place).collect::<Vec<_>>(),
        places
    );
    assert_eq!(test.run(test.queue.image(&endpoint(), &id, 0)).unwrap(), None);
    test.pass(Duration::from_hours(1));
    test.queue.sweep().unwrap();
    assert_eq!(traces(&test, "X-Amz-Signature"), 0);
}
