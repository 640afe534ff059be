//! The agent: a port at which HAProxy's agent check asks how busy this server is. The answer is one line, a weight such as `75%`.
//! The longer a new job would wait, the smaller it is; `0%` sends new jobs elsewhere.
//!
//! It says nothing else and reads nothing. A weight never puts HAProxy's server into a state that only another answer ends, as the
//! words `drain`, `maint` and `down` do: an operator's own word in HAProxy stays, and a server that was killed comes back.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::domain::EndpointId;
use crate::queue::JobQueue;

/// Connections at once. HAProxy has one for each of its backends, and every process of it its own.
const CONNECTIONS: usize = 64;
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a weight holds. So strangers cannot keep the database busy.
const FRESH: Duration = Duration::from_millis(200);
/// A job that waits so long halves the weight.
const HALF: f64 = 5.0;
/// HAProxy's `agent-send` may send us something. It is read and ignored, since a connection that is closed with bytes unread is
/// reset, and the answer may be lost with it.
const IGNORED: u64 = 4096;

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, queue: JobQueue, endpoints: Vec<EndpointId>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let agent = Arc::new(Agent { queue, endpoints, latest: Mutex::new(None) });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut answering = JoinSet::new();
    loop {
        while answering.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files, or a client that is gone already.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let agent = Arc::clone(&agent);
        answering.spawn(async move {
            let _ = timeout(PATIENCE, agent.answer(stream)).await;
            drop(place);
        });
    }
}

struct Agent {
    queue: JobQueue,
    endpoints: Vec<EndpointId>,
    latest: Mutex<Option<(Instant, u32)>>,
}

impl Agent {
    async fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let line = format!("{}%\n", self.weight().await);
        stream.write_all(line.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(IGNORED), &mut tokio::io::sink()).await?;
        Ok(())
    }

    async fn weight(&self) -> u32 {
        let mut latest = self.latest.lock().await;
        if let Some((at, weight)) = *latest
            && at.elapsed() < FRESH
        {
            return weight;
        }
        let endpoints: Vec<_> = self.endpoints.iter().collect();
        let wait = self.queue.expected_wait(&endpoints).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the agent cannot say how busy the server is");
            None
        });
        let weight = weight(wait);
        *latest = Some((Instant::now(), weight));
        weight
    }
}

/// In percent: of two equal servers, the one where a job waits twice as long gets about half as many. The weight is 0 only where a
/// job would not be taken: a long queue is better than none.
fn weight(wait: Option<Duration>) -> u32 {
    let Some(wait) = wait else { return 0 };
    let share = HALF / (HALF + wait.as_secs_f64());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 1 to 100")]
    let percent = (100.0 * share).round().clamp(1.0, 100.0) as u32;
    percent
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::thread;

    use super::*;
    use crate::queue::tests::TestQueue;

    #[test]
    fn the_longer_a_job_waits_the_smaller_is_the_weight() {
        let seconds = |wait| weight(Some(Duration::from_secs(wait)));
        assert_eq!(weight(None), 0);
        assert_eq!([0, 5, 15, 45, 95, 495].map(seconds), [100, 50, 25, 10, 5, 1]);
        assert_eq!(seconds(u64::MAX), 1);
    }

    /// An agent on a thread of its own, and its address.
    fn start(test: &TestQueue) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let queue = test.queue.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, queue, vec![EndpointId::default()]))
        });
        address
    }

    fn ask(address: std::net::SocketAddr, sent: &[u8]) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(sent).unwrap();
        let mut line = String::new();
        stream.read_to_string(&mut line).unwrap();
        line
    }

    #[test]
    fn whoever_connects_reads_one_line() {
        let test = TestQueue::new();
        let address = start(&test);
        // No worker has been ready yet.
        assert_eq!(ask(address, b""), "0%\n");
        assert_eq!(ask(address, b"how are you\n"), "0%\n");
    }

    #[test]
    fn clients_that_stay_do_not_keep_the_agent_from_others() {
        let test = TestQueue::new();
        let address = start(&test);
        let held: Vec<_> =
            (0..2 * CONNECTIONS).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        assert_eq!(ask(address, b""), "0%\n");
        drop(held);
    }
}
