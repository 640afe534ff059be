//! What jobs wait for outside this machine: the pictures that they start from, and the upload of their pictures to
//! the client's bucket.
//!
//! Each errand runs on a thread of its own, so that neither other jobs nor a cancel wait for a slow host. Dropping an
//! errand gives it up: the request under way ends within its time limit, and no further one begins.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread::{self, Builder};
use std::time::Duration;

use crate::domain::{GenerationInput, ImageSource, JobId, NewImage, S3Config, StoredImage};
use crate::fetch::{FetchError, Fetcher};
use crate::queue::{ClaimedJob, JobQueue};

/// A worker's errands.
pub(super) struct Errands {
    fetcher: Fetcher,
    queue: JobQueue,
    /// Before each further try at a request that the host refused for the moment.
    pub pauses: [Duration; 2],
    /// Jobs whose input pictures are being fetched.
    pub fetching: Vec<Errand<GenerationInput>>,
    /// Jobs whose pictures are being uploaded.
    pub storing: Vec<Errand<Vec<StoredImage>>>,
}

/// A job on its errand.
pub(super) struct Errand<T> {
    pub job: ClaimedJob,
    pub call: Call<Outcome<T>>,
}

/// A call under way on a thread of its own.
pub(super) struct Call<T> {
    outcome: Receiver<T>,
    given_up: GivenUp,
}

/// The thread of a call panicked, or could not be started.
pub(super) struct Lost;

/// What the errand brought, or a sentence for the client.
type Outcome<T> = Result<T, String>;

/// Errands of each kind at once. They hold pictures in memory.
const MAX_ERRANDS: usize = 4;
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
pub(super) const INTERRUPTED: &str = "The server stopped unexpectedly while it fetched or stored pictures.";

impl Errands {
    pub fn new(fetcher: Fetcher, queue: JobQueue) -> Self {
        Self { fetcher, queue, pauses: PAUSES, fetching: Vec::new(), storing: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.fetching.is_empty() && self.storing.is_empty()
    }

    pub fn is_fetching(&self) -> bool {
        !self.fetching.is_empty()
    }

    pub fn is_storing(&self) -> bool {
        !self.storing.is_empty()
    }

    /// Whether another job may need an errand of either kind.
    pub fn has_place(&self) -> bool {
        self.fetching.len() < MAX_ERRANDS && self.storing.len() < MAX_ERRANDS
    }

    pub fn give_up_fetching(&mut self) -> Vec<ClaimedJob> {
        mem::take(&mut self.fetching).into_iter().map(|errand| errand.job).collect()
    }

    pub fn give_up_storing(&mut self) -> Vec<ClaimedJob> {
        mem::take(&mut self.storing).into_iter().map(|errand| errand.job).collect()
    }

    /// Fetches the pictures that an input names by URL. They are kept in memory only; the job keeps the URLs.
    pub fn fetch(&mut self, job: ClaimedJob, mut input: GenerationInput) {
        let fetcher = self.fetcher.clone();
        let errand = self.start(job, move |given_up| {
            for (name, source) in input.pictures() {
                let ImageSource::Url(url) = source else { continue };
                if given_up.load(Ordering::Relaxed) {
                    break; // nobody will look at the outcome
                }
                let bytes = fetcher
                    .fetch_image(url)
                    .map_err(|reason| format!("{name} could not be fetched: {reason}."))?;
                let picture = ImageSource::from_bytes(bytes)
                    .map_err(|reason| format!("{name} cannot be used. {reason}"))?;
                *source = picture;
            }
            Ok(input)
        });
        self.fetching.push(errand);
    }

    /// Uploads a job's pictures to the client's bucket.
    pub fn store(&mut self, job: ClaimedJob, bucket: S3Config, images: Vec<NewImage>) {
        let (fetcher, pauses, id) = (self.fetcher.clone(), self.pauses, job.id().clone());
        let errand = self.start(job, move |given_up| {
            let store = |(index, image): (usize, &NewImage)| {
                let key = format!("{id}/{index}.png");
                let store = |png| with_retries(pauses, given_up, || fetcher.store_image(&bucket, &key, png));
                let url = image.png.as_deref().map(store).transpose()?;
                Ok(StoredImage { seed: image.seed, url, prompts: image.prompts.clone() })
            };
            let wanted = images.iter().enumerate().take_while(|_| !given_up.load(Ordering::Relaxed));
            wanted.map(store).collect::<Result<_, FetchError>>().map_err(|error| {
                format!("The pictures could not be stored in the bucket {}: {error}.", bucket.bucket_name)
            })
        });
        self.storing.push(errand);
    }

    fn start<T: Send + 'static>(
        &self,
        job: ClaimedJob,
        work: impl FnOnce(&AtomicBool) -> Outcome<T> + Send + 'static,
    ) -> Errand<T> {
        let call = self.call(job.id(), work);
        Errand { job, call }
    }

    /// Does some work for a job on a thread of its own, which wakes the worker at its end.
    pub fn call<T: Send + 'static>(
        &self,
        job: &JobId,
        work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
    ) -> Call<T> {
        let given_up = GivenUp::default();
        let (sender, outcome) = mpsc::sync_channel(1);
        let (flag, queue, worker) = (Arc::clone(&given_up.0), self.queue.clone(), thread::current());
        let errand = move || {
            let _ = sender.send(work(&flag)); // fails if the errand was given up
            queue.wake_workers();
            worker.unpark();
        };
        if let Err(error) = Builder::new().name("errand".to_owned()).spawn(errand) {
            // This drops the sender, and so fails the job.
            tracing::error!(%job, %error, "no thread could be started");
        }
        Call { outcome, given_up }
    }
}

impl<T> Call<T> {
    /// The outcome, if the call is over.
    pub fn outcome(&self) -> Option<Result<T, Lost>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(Ok(outcome)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(Lost)),
        }
    }

    /// The outcome is not wanted any more.
    pub fn give_up(&self) {
        self.given_up.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Repeats `call` while it fails for reasons that may pass, once after each pause, unless the errand is given up.
fn with_retries<T>(
    pauses: [Duration; 2],
    given_up: &AtomicBool,
    call: impl Fn() -> Result<T, FetchError>,
) -> Result<T, FetchError> {
    for pause in pauses {
        match call() {
            Err(error) if error.is_temporary() && !given_up.load(Ordering::Relaxed) => {
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
