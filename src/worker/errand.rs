//! What a job waits for outside this machine: the pictures that it starts from, and its own pictures' way into
//! the client's bucket.
//!
//! An errand runs on a thread of its own, so that neither the jobs beside it nor a cancel wait for a slow host.
//! Dropped, it is given up: what is under way comes to its end, which has its bounds, and nothing further begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread::{self, Builder};
use std::time::Duration;

use crate::domain::{GenerationInput, ImageSource, NewImage, S3Config, StoredImage};
use crate::fetch::{FetchError, Fetcher};
use crate::queue::{ClaimedJob, JobQueue};

/// A job on its errand.
pub(super) struct Errand<T> {
    pub job: ClaimedJob,
    outcome: Receiver<Outcome<T>>,
    _given_up: GivenUp,
}

/// What came of it, or why nothing did, in a sentence for the client.
type Outcome<T> = Result<T, String>;

/// How errands are run.
pub(super) struct Errands {
    pub fetcher: Fetcher,
    pub queue: JobQueue,
    /// Before each further try at what a host refused for the moment.
    pub pauses: [Duration; 2],
}

pub(super) const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
const INTERRUPTED: &str = "The server stopped unexpectedly while it fetched or stored pictures.";

impl Errands {
    /// Brings the pictures that an input names by their addresses: the input with their bytes. They live as long
    /// as the work does; the job keeps the addresses alone.
    pub fn fetch(&self, job: ClaimedJob, mut input: GenerationInput) -> Errand<GenerationInput> {
        let fetcher = self.fetcher.clone();
        self.start(job, move |given_up| {
            for (name, source) in [("init_image", &mut input.init_image), ("mask", &mut input.mask)] {
                let Some(ImageSource::Url(url)) = source else { continue };
                if given_up.load(Ordering::Relaxed) {
                    break; // nobody will look at it
                }
                let bytes = fetcher
                    .fetch_image(url)
                    .map_err(|reason| format!("{name} could not be fetched: {reason}."))?;
                let picture = ImageSource::from_bytes(bytes)
                    .map_err(|reason| format!("{name} cannot be used. {reason}"))?;
                *source = Some(picture);
            }
            Ok(input)
        })
    }

    /// Puts a job's pictures into the client's bucket.
    pub fn store(
        &self,
        job: ClaimedJob,
        bucket: S3Config,
        images: Vec<NewImage>,
    ) -> Errand<Vec<StoredImage>> {
        let (fetcher, pauses, id) = (self.fetcher.clone(), self.pauses, job.id().clone());
        self.start(job, move |given_up| {
            let store = |(index, image): (usize, &NewImage)| {
                let key = format!("{id}/{index}.png");
                let store = |png| patiently(pauses, given_up, || fetcher.store_image(&bucket, &key, png));
                let url = image.png.as_deref().map(store).transpose()?;
                Ok(StoredImage { seed: image.seed, url })
            };
            let wanted = images.iter().enumerate().take_while(|_| !given_up.load(Ordering::Relaxed));
            wanted.map(store).collect::<Result<_, FetchError>>().map_err(|error| {
                format!("The pictures could not be stored in the bucket {}: {error}.", bucket.bucket_name)
            })
        })
    }

    fn start<T: Send + 'static>(
        &self,
        job: ClaimedJob,
        work: impl FnOnce(&AtomicBool) -> Outcome<T> + Send + 'static,
    ) -> Errand<T> {
        let given_up = GivenUp::default();
        let (tell, outcome) = mpsc::sync_channel(1);
        let (seen, queue, worker) = (Arc::clone(&given_up.0), self.queue.clone(), thread::current());
        let errand = move || {
            let _ = tell.send(work(&seen)); // nobody listens to one that was given up
            queue.wake_workers();
            worker.unpark();
        };
        if let Err(error) = Builder::new().name("errand".to_owned()).spawn(errand) {
            // Which drops `tell`, and so fails the job.
            tracing::error!(job = %job.id(), %error, "no thread could be started");
        }
        Errand { job, outcome, _given_up: given_up }
    }
}

impl<T> Errand<T> {
    /// What came of it, if it is over.
    pub fn outcome(&self) -> Option<Outcome<T>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(INTERRUPTED.to_owned())),
        }
    }
}

#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Calls until it succeeds, is refused for good, has been tried often enough or is given up.
fn patiently<T>(
    pauses: [Duration; 2],
    given_up: &AtomicBool,
    call: impl Fn() -> Result<T, FetchError>,
) -> Result<T, FetchError> {
    for pause in pauses {
        match call() {
            Err(error) if error.is_passing() && !given_up.load(Ordering::Relaxed) => {
                thread::sleep(pause);
                if given_up.load(Ordering::Relaxed) {
                    return Err(error);
                }
            }
            outcome => return outcome,
        }
    }
    call()
}
