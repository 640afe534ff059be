//! Jobs that name their input pictures by URL.

use super::*;

/// A server's answer with a picture, and that picture.
fn picture(width: u32) -> (Vec<u8>, ImageSource) {
    let mut png = std::io::Cursor::new(Vec::new());
    let pixels = image::DynamicImage::from(image::RgbImage::new(width, 1));
    pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let png = png.into_inner();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", png.len());
    ([head.as_bytes(), &png].concat(), ImageSource::Bytes(png.into()))
}

/// A server that reads requests and never answers.
fn silent() -> Server {
    let mut held = Vec::new();
    Server::start(move |stream| held.push(stream.try_clone().unwrap()))
}

fn starting_from(init_image: &str, mask: Option<&str>) -> String {
    serde_json::json!({"prompt": "a fox", "num_inference_steps": 1, "init_image": init_image, "mask": mask})
        .to_string()
}

fn url(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.address)
}

#[test]
fn pictures_are_fetched_before_a_job_begins() {
    let bench = Bench::new();
    let ((first, init_image), (second, mask)) = (picture(1), picture(2));
    let server = Server::answering(&[first, second]);
    let input = starting_from(&url(&server, "/init.png"), Some(&url(&server, "/mask.png")));
    let id = bench.test.submit(&input);
    work_off_with_errands(&mut bench.worker(1));
    assert!(bench.completed(&id));
    assert_eq!(*bench.log.pictures.borrow(), [Some(init_image), Some(mask)]);
    let asked = server.asked();
    assert!(asked[0].starts_with("GET /init.png ") && asked[1].starts_with("GET /mask.png "), "{asked:?}");
    assert_eq!(bench.test.find(&id).unwrap().input, input, "the job keeps the URLs only");
}

#[test]
fn a_picture_that_cannot_be_fetched_fails_its_job_and_says_why() {
    let bench = Bench::new();
    let missing = Server::answering(&["HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"]);
    let text = Server::answering(&["HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nno png"]);
    let large = Server::answering(&["HTTP/1.1 200 OK\r\ncontent-length: 16777217\r\n\r\n"]);
    for (url, error) in [
        (url(&missing, "/"), "could not be fetched: 127.0.0.1 answered with HTTP 404."),
        (
            "http://169.254.169.254/latest".to_owned(),
            "could not be fetched: the address of 169.254.169.254 is not public; the server's operator can allow it with --allow-addresses.",
        ),
        (
            url(&text, "/"),
            "cannot be used. It is not a picture in a supported format: send a PNG, JPEG, WebP, GIF, BMP or TIFF.",
        ),
        (url(&large, "/"), "could not be fetched: it is larger than 16 MiB."),
    ] {
        let id = bench.test.submit(&starting_from(&url, None));
        work_off_with_errands(&mut bench.worker(1));
        assert_eq!(bench.error(&id), format!("init_image {error}"));
    }
}

#[test]
fn a_slow_picture_delays_neither_running_jobs_nor_the_next_one() {
    let (bench, server) = (Bench::new(), silent());
    let running = bench.submit("a fox", 3);
    let mut worker = bench.worker(1);
    worker.tick();
    let slow = bench.test.submit(&starting_from(&url(&server, "/"), None));
    let next = bench.submit("a fox", 2);
    work_off(&mut worker);
    assert!(bench.completed(&running) && bench.completed(&next));
    assert_eq!(bench.test.status(&slow), Some(JobStatus::InProgress));
    assert_eq!(worker.tick(), TickOutcome::Waiting);
}

#[test]
fn a_job_whose_picture_has_come_begins_beside_the_running_job() {
    let bench = Bench::new();
    let (answer, _) = picture(1);
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let server = Server::start(move |stream| {
        let _ = gone.recv();
        let _ = std::io::Write::write_all(stream, &answer);
    });
    let slow = bench.test.submit(&starting_from(&url(&server, "/"), None));
    let mut worker = bench.worker(1);
    worker.tick();
    let beside = bench.submit("a fox", 5);
    worker.tick();
    go.send(()).unwrap();
    while worker.jobs.active.len() < 2 {
        worker.collect_errands();
        worker.begin_waiting();
        thread::park_timeout(LOOK);
    }
    worker.tick();
    assert!(bench.completed(&slow));
    assert_eq!(bench.test.status(&beside), Some(JobStatus::InProgress));
}

#[test]
fn at_most_four_jobs_wait_for_pictures_at_once() {
    let (bench, server) = (Bench::new(), silent());
    let input = starting_from(&url(&server, "/"), None);
    let ids: Vec<_> = (0..6).map(|_| bench.test.submit(&input)).collect();
    let mut worker = bench.worker(1);
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    let fetched = |id: &&JobId| bench.test.status(id) == Some(JobStatus::InProgress);
    assert_eq!(ids.iter().filter(fetched).count(), 4);
}

#[test]
fn a_job_can_be_cancelled_and_can_time_out_while_its_picture_is_fetched() {
    let (bench, server) = (Bench::new(), silent());
    let input = starting_from(&url(&server, "/"), None);
    let policy = Policy { execution_timeout: Duration::from_secs(5), ..Policy::default() };
    let overdue = bench.test.submit_job(NewJob { policy, ..new_job(&input) });
    let cancelled = bench.test.submit(&input);
    let mut worker = bench.worker(1);
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    bench.test.cancel(&cancelled);
    bench.test.pass(Duration::from_secs(5));
    assert_eq!(worker.tick(), TickOutcome::Idle);
    assert_eq!(bench.test.status(&cancelled), Some(JobStatus::Cancelled));
    assert_eq!(bench.test.status(&overdue), Some(JobStatus::TimedOut));
    assert_eq!(bench.log.steps.get(), 0);
}

#[test]
fn a_stop_puts_back_a_job_whose_picture_is_being_fetched() {
    let (bench, server) = (Bench::new(), silent());
    let id = bench.test.submit(&starting_from(&url(&server, "/"), None));
    let mut worker = bench.worker(1);
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    bench.stop.stop(LONG);
    assert_eq!(worker.tick(), TickOutcome::Stopped);
    assert_eq!(bench.test.status(&id), Some(JobStatus::InQueue));
}

#[test]
fn a_job_whose_picture_has_come_is_put_back_if_the_engine_panicked_over_another() {
    let bench = Bench::new();
    let (answer, _) = picture(1);
    let server = Server::answering(&[answer]);
    let id = bench.test.submit(&starting_from(&url(&server, "/"), None));
    let panicking = bench.submit("panic in begin", 1);
    let mut worker = bench.worker(1);
    worker.tick();
    assert_eq!(bench.error(&panicking), PANICKED);
    for _ in 0..10_000 {
        if bench.completed(&id) {
            return;
        }
        if worker.tick() == TickOutcome::Waiting {
            thread::park_timeout(LOOK);
        }
    }
    panic!("{:?}", bench.test.find(&id));
}
