//! `stablehand jobs`: lists, shows and cancels the jobs of a running server, and empties its queue.

mod list;

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Failure;
use super::print::print;
use super::remote::{Server, ServerArgs, granted, printable};
use crate::domain::EndpointId;

#[derive(Debug, Args)]
pub(super) struct JobsArgs {
    #[command(subcommand)]
    command: JobsCommand,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    /// List jobs, newest first
    List(list::ListArgs),
    /// Print a job as the API shows it
    Show {
        /// Id of the job
        id: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Cancel jobs that wait or run
    Cancel {
        /// Ids of the jobs
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Remove all jobs that wait; those that run go on
    Purge {
        #[command(flatten)]
        place: PlaceArgs,
    },
}

/// Whose jobs.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// Endpoint of the server
    #[arg(long, value_name = "NAME", default_value = EndpointId::DEFAULT)]
    endpoint: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn jobs(args: &JobsArgs) -> Result<(), Failure> {
    match &args.command {
        JobsCommand::List(args) => list::list(args),
        JobsCommand::Show { id, place } => {
            let job = granted(place.server()?.get(&place.path(&format!("status/{}", encoded(id))))?)?;
            print(&format!("{job:#}\n"))
        }
        JobsCommand::Cancel { ids, place } => {
            let server = place.server()?;
            let mut refused = 0;
            for id in ids {
                let outcome = match granted(server.post(&place.path(&format!("cancel/{}", encoded(id))))?) {
                    Ok(job) => printable(job["status"].as_str().unwrap_or("unknown")),
                    Err(Failure::Other(why)) => {
                        refused += 1;
                        why
                    }
                    Err(other) => return Err(other),
                };
                print(&format!("{}  {outcome}\n", printable(id)))?;
            }
            match refused {
                0 => Ok(()),
                1 => Err(Failure::Other("one job was not cancelled".to_owned())),
                more => Err(Failure::Other(format!("{more} jobs were not cancelled"))),
            }
        }
        JobsCommand::Purge { place } => {
            let purged = granted(place.server()?.post(&place.path("purge-queue"))?)?;
            print(&format!("removed {} jobs that waited\n", purged["removed"]))
        }
    }
}

impl PlaceArgs {
    fn server(&self) -> Result<Server, Failure> {
        self.server.server()
    }

    fn path(&self, operation: &str) -> String {
        format!("/v2/{}/{operation}", encoded(&self.endpoint))
    }
}

/// Part of a path, as the user typed it.
fn encoded(id: &str) -> String {
    utf8_percent_encode(id, NON_ALPHANUMERIC).to_string()
}
