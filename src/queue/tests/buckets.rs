//! Jobs whose pictures are uploaded to the client's bucket.

use super::*;

fn for_bucket() -> NewJob {
    let config = crate::domain::S3Config::parse(&serde_json::json!({
        "accessId": "AKIAIOSFODNN7EXAMPLE", "accessSecret": "wJalrXUtnFEMI-K7MDENG", "bucketName": "foxes",
        "endpointUrl": "https://s3.example",
    }));
    NewJob { s3_config: config.unwrap(), ..new_job("{}") }
}

#[test]
fn a_buckets_keys_are_deleted_as_soon_as_the_job_has_ended() {
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
        assert!(ended(job.release()), "the next attempt needs them again");
        let job = test.claim();
        assert_eq!(job.s3_config(), for_bucket().s3_config.as_ref());
        assert!(test.on_disk("wJalrXUtnFEMI-K7MDENG"));
        end(&test, job);
        test.queue.sweep().unwrap();
        assert!(!test.on_disk("wJalrXUtnFEMI-K7MDENG") && !test.on_disk("AKIAIOSFODNN7EXAMPLE"));
        assert!(test.find(&id).is_some());
    }
}

#[test]
fn a_job_whose_bucket_keys_are_deleted_cannot_be_retried() {
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
        StoredImage { seed: 7, url: Some(url.clone()), prompts: None },
        StoredImage { seed: 8, url: None, prompts: None }
    ])));
    let places = [ImagePlace::Bucket(url), ImagePlace::Withheld];
    assert_eq!(
        test.find(&id).unwrap().images.into_iter().map(|image| image.place).collect::<Vec<_>>(),
        places
    );
    assert_eq!(test.run(test.queue.image(&endpoint(), &id, 0)).unwrap(), None);
    test.pass(Duration::from_hours(1));
    test.queue.sweep().unwrap();
    assert!(!test.on_disk("X-Amz-Signature"));
}
