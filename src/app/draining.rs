//! Draining: new jobs go to other servers, this one finishes what it has. The operator asks for it by a file in the data folder,
//! so that nobody else can, and in containers too. The server says in the same file how far it is.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix_web::{rt, web};

use crate::domain::EndpointId;
use crate::queue::{JobQueue, QueueError};

/// How often each side looks at the file.
pub const LOOK: Duration = Duration::from_millis(500);
const FILE: &str = "drain";

/// How far a server is that was asked to drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// The server has not seen it yet.
    Asked,
    /// Jobs wait or run.
    Draining,
    /// No job waits or runs.
    Drained,
}

/// The file of a data folder.
#[derive(Debug, Clone)]
pub struct DrainFile(PathBuf);

impl Drain {
    fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked\n",
            Self::Draining => "draining\n",
            Self::Drained => "drained\n",
        }
    }
}

impl DrainFile {
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE))
    }

    /// None: nobody asks.
    pub fn read(&self) -> io::Result<Option<Drain>> {
        let text = match fs::read(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            // Root has asked, in a folder of another user.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(Some(Drain::Asked)),
            read => read?,
        };
        let known = [Drain::Draining, Drain::Drained];
        Ok(Some(known.into_iter().find(|drain| drain.word().as_bytes() == text).unwrap_or(Drain::Asked)))
    }

    /// Replaces the file: the one that is there may belong to root.
    pub fn write(&self, drain: Drain) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.0.parent().unwrap_or(Path::new(".")))?;
        file.write_all(drain.word().as_bytes())?;
        file.persist(&self.0)?;
        Ok(())
    }

    /// Returns whether it was there.
    pub fn remove(&self) -> io::Result<bool> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        }
    }
}

/// Does what the file says, until it is dropped. A server that starts does not drain.
pub(super) async fn watch(file: DrainFile, queue: JobQueue, endpoints: Vec<EndpointId>) {
    loop {
        match look(&file, &queue, &endpoints).await {
            Ok(()) => {}
            Err(error) => tracing::debug!(error, "cannot look whether the server is to drain"),
        }
        rt::time::sleep(LOOK).await;
    }
}

async fn look(file: &DrainFile, queue: &JobQueue, endpoints: &[EndpointId]) -> Result<(), String> {
    let read = {
        let file = file.clone();
        web::block(move || file.read()).await.map_err(|error| error.to_string())?
    };
    let asked = read.map_err(|error| error.to_string())?;
    if asked.is_some() != queue.is_draining() {
        queue.set_draining(asked.is_some());
        if asked.is_some() {
            tracing::info!("draining: new jobs go to other servers");
        } else {
            tracing::info!("no longer draining: new jobs come here again");
        }
    }
    let Some(said) = asked else { return Ok(()) };
    let is_empty = is_empty(queue, endpoints).map_err(|error| error.to_string())?;
    let state = if is_empty { Drain::Drained } else { Drain::Draining };
    if said == state {
        return Ok(());
    }
    if state == Drain::Drained {
        tracing::info!("drained: no job waits or runs");
    }
    let file = file.clone();
    let written = web::block(move || match file.read()? {
        // It was taken back meanwhile.
        None => Ok(()),
        Some(_) => file.write(state),
    });
    written.await.map_err(|error| error.to_string())?.map_err(|error: io::Error| error.to_string())
}

fn is_empty(queue: &JobQueue, endpoints: &[EndpointId]) -> Result<bool, QueueError> {
    for endpoint in endpoints {
        let jobs = queue.counts(endpoint)?;
        if jobs.in_queue + jobs.in_progress > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_how_far_the_server_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = DrainFile::new(dir.path());
        assert_eq!(file.read().unwrap(), None);
        for drain in [Drain::Asked, Drain::Draining, Drain::Drained] {
            file.write(drain).unwrap();
            assert_eq!(file.read().unwrap(), Some(drain));
        }
        // `touch` asks too.
        fs::write(dir.path().join("drain"), [0xff]).unwrap();
        assert_eq!(file.read().unwrap(), Some(Drain::Asked));
        assert!(file.remove().unwrap() && !file.remove().unwrap());
    }
}
