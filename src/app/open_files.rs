//! How many files and connections this process may have open at the same time.

use super::AppError;

/// For the database, the models, calls to other hosts and the threads. Connections come on top.
const OWN: u64 = 192;
const MAX_CONNECTIONS: u64 = 10_000;

/// Raises the limit as far as this user may and is of use, and returns how many connections that leaves room for. Fails if it
/// is not even enough for the server itself.
pub(super) fn connections() -> Result<usize, AppError> {
    connections_within(raise(OWN + MAX_CONNECTIONS))
}

fn connections_within(limit: Option<u64>) -> Result<usize, AppError> {
    let Some(limit) = limit else { return Ok(as_count(MAX_CONNECTIONS)) };
    // Some clients must be answered, too.
    let least = OWN + OWN / 3;
    if limit < least {
        return Err(AppError::OpenFiles { limit, least });
    }
    Ok(as_count((limit - OWN).min(MAX_CONNECTIONS)))
}

fn as_count(connections: u64) -> usize {
    usize::try_from(connections).unwrap_or(usize::MAX)
}

/// The limit in force. None: there is no limit, or the system does not have one of this kind.
#[cfg(unix)]
fn raise(wanted: u64) -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if current.is_some_and(|current| current < wanted) {
        // If the system refuses, what it has granted before counts.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
    getrlimit(Resource::Nofile).current
}

#[cfg(not(unix))]
fn raise(_: u64) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_what_the_server_itself_leaves() {
        assert_eq!(connections_within(None).unwrap(), 10_000);
        assert_eq!(connections_within(Some(1 << 20)).unwrap(), 10_000);
        assert_eq!(connections_within(Some(1024)).unwrap(), 832);
        assert_eq!(
            connections_within(Some(20)).unwrap_err().to_string(),
            "this process may have only 20 files open at once, and the server needs 256: raise the limit (`ulimit -n`, or \
             LimitNOFILE= of a service)"
        );
    }
}
