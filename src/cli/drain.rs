//! `stablehand drain`: sends new jobs to other servers, and waits until this one has nothing left to do.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::Failure;
use super::print::print;
use crate::app::{DRAIN_LOOK, Drain, DrainFile};
use crate::config::{DataDirArgs, time};

pub(super) const ABOUT: &str = "Drain the server that uses this data folder: balancers that ask it send new jobs to other \
servers, and it finishes the jobs that it has. Their pictures stay until their time is over. A server that starts again no longer \
drains.";

/// A server looks several times in this time.
const NOTICE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// Wait until no job waits or runs, for this time at most, such as 10m
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "off")]
    wait: Option<Duration>,
    /// Take new jobs again
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    folder: DataDirArgs,
}

/// Returns false if jobs are left after the time.
pub(super) fn drain(args: &DrainArgs) -> Result<bool, Failure> {
    let folder = args.folder.data_dir()?;
    if !folder.is_dir() {
        return Err(Failure::Other(format!("there is no data folder at {}", folder.display())));
    }
    let file = DrainFile::new(&folder);
    let failed = |error: io::Error| {
        Failure::Other(format!("cannot drain the server on {}: {error}", folder.display()))
    };
    if args.off {
        let was_asked = file.remove().map_err(failed)?;
        // The server may have been writing how far it is.
        thread::sleep(DRAIN_LOOK);
        if matches!(file.read().map_err(failed)?, Some(Drain::Draining | Drain::Drained)) {
            file.remove().map_err(failed)?;
        }
        print(&if was_asked { "new jobs come here again\n" } else { "the server does not drain\n" })?;
        return Ok(true);
    }
    // Also if the file is there: a server that has ended may have left it.
    file.write(Drain::Asked).map_err(failed)?;
    let begun = Instant::now();
    let mut noticed = false;
    loop {
        let state = file.read().map_err(failed)?;
        match state {
            Some(Drain::Asked) if begun.elapsed() > NOTICE => {
                file.remove().map_err(failed)?;
                return Err(nobody(&folder));
            }
            Some(Drain::Asked) => {}
            Some(Drain::Drained) => {
                print(&"drained: no job waits or runs\n")?;
                return Ok(true);
            }
            Some(Drain::Draining) => {
                if !noticed {
                    noticed = true;
                    print(&"draining: new jobs go to other servers\n")?;
                }
                match args.wait {
                    None => return Ok(true),
                    Some(wait) if begun.elapsed() >= wait => {
                        print(&"jobs are left; the server goes on draining\n")?;
                        return Ok(false);
                    }
                    Some(_) => {}
                }
            }
            None => {
                return Err(Failure::Other(
                    "the server takes new jobs again: it has restarted, or `stablehand drain --off` came"
                        .to_owned(),
                ));
            }
        }
        thread::sleep(DRAIN_LOOK);
    }
}

fn nobody(folder: &Path) -> Failure {
    Failure::Other(format!(
        "no server uses the data folder {}: start it, or name another with --data-dir",
        folder.display()
    ))
}
