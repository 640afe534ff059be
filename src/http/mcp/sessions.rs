//! Sessions: which client a request belongs to, so that the client can cancel it by its id. Nothing else depends on them;
//! clients of newer versions of the protocol have none.
//!
//! They are bounded in number and time. Beyond the number, the ones that were unused for longest are forgotten; their
//! clients get 404 and begin anew, as the protocol wants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rmcp::model::RequestId;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::McpError;
use crate::domain::Node;
use crate::http::request::{ApiError, Caller};

/// Sessions at once, of all callers and of one.
const MAX: usize = 1000;
const MAX_OF_ONE: usize = 200;
/// How long a session lives without a request: chat programs stay open over night.
const IDLE: Duration = Duration::from_hours(24);

/// All sessions of the server.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    open: Arc<Mutex<HashMap<Uuid, Session>>>,
    /// Which of several servers this is. The ids say it.
    node: Option<Node>,
}

#[derive(Debug)]
struct Session {
    owner: Caller,
    used_at: Instant,
    /// The requests that are being answered.
    running: HashMap<RequestId, CancellationToken>,
}

/// A request that is being answered. It can be cancelled until this is dropped.
pub struct Running {
    pub cancelled: CancellationToken,
    sessions: Sessions,
    session: Uuid,
    request: RequestId,
}

impl Sessions {
    pub fn new(node: Option<Node>) -> Self {
        Self { node, ..Self::default() }
    }

    /// Begins a session, and returns its id.
    pub fn begin(&self, owner: Caller) -> Result<Uuid, McpError> {
        let mut sessions = self.lock();
        sessions.retain(|_, session| session.used_at.elapsed() < IDLE || !session.running.is_empty());
        let own = sessions.values().filter(|session| session.owner == owner).count();
        if own >= MAX_OF_ONE {
            forget_oldest(&mut sessions, |session| session.owner == owner)?;
        } else if sessions.len() >= MAX {
            forget_oldest(&mut sessions, |_| true)?;
        }
        let id = Uuid::new_v4();
        let id = self.node.map_or(id, |node| node.mark(id));
        sessions.insert(id, Session { owner, used_at: Instant::now(), running: HashMap::new() });
        Ok(id)
    }

    /// Checks that the caller has this session, and that it counts as used.
    pub fn enter(&self, id: &str, owner: Caller) -> Result<Uuid, McpError> {
        let id = Uuid::try_parse(id).map_err(|_| McpError::NoSession)?;
        let mut sessions = self.lock();
        let session = sessions.get_mut(&id).filter(|session| session.owner == owner);
        let session =
            session.filter(|session| session.used_at.elapsed() < IDLE || !session.running.is_empty());
        session.ok_or(McpError::NoSession)?.used_at = Instant::now();
        Ok(id)
    }

    /// Registers a request that is about to be answered.
    pub fn run(&self, session: Uuid, request: RequestId) -> Result<Running, McpError> {
        let cancelled = CancellationToken::new();
        let mut sessions = self.lock();
        let running = &mut sessions.get_mut(&session).ok_or(McpError::NoSession)?.running;
        if running.contains_key(&request) {
            return Err(McpError::BadMessage("A request with this id is still being answered."));
        }
        running.insert(request.clone(), cancelled.clone());
        Ok(Running { cancelled, sessions: self.clone(), session, request })
    }

    /// Cancels a request, if it is still being answered.
    pub fn cancel(&self, session: Uuid, request: &RequestId) {
        let sessions = self.lock();
        if let Some(running) = sessions.get(&session).and_then(|session| session.running.get(request)) {
            running.cancel();
        }
    }

    /// Ends a session, and cancels its requests.
    pub fn end(&self, session: Uuid) {
        let ended = self.lock().remove(&session);
        ended.iter().flat_map(|session| session.running.values()).for_each(CancellationToken::cancel);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the session that was unused for longest, among those that answer nothing.
fn forget_oldest(
    sessions: &mut HashMap<Uuid, Session>,
    among: impl Fn(&Session) -> bool,
) -> Result<(), McpError> {
    let idle = sessions.iter().filter(|(_, session)| session.running.is_empty() && among(session));
    let oldest = idle.min_by_key(|(_, session)| session.used_at).map(|(id, _)| *id);
    let full = || ApiError::Unavailable("All sessions are in use; try again later.".to_owned());
    sessions.remove(&oldest.ok_or_else(full)?);
    Ok(())
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(session) = self.sessions.lock().get_mut(&self.session) {
            session.running.remove(&self.request);
            session.used_at = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn caller(number: u8) -> Caller {
        Caller::Address(Ipv4Addr::new(10, 0, 0, number).into())
    }

    #[test]
    fn a_session_belongs_to_the_caller_that_began_it_until_it_ends() {
        let sessions = Sessions::default();
        let id = sessions.begin(caller(1)).unwrap();
        assert_eq!(sessions.enter(&id.to_string(), caller(1)).unwrap(), id);
        assert!(sessions.enter(&id.to_string(), caller(2)).is_err());
        assert!(sessions.enter("", caller(1)).is_err() && sessions.enter("../..", caller(1)).is_err());
        sessions.end(id);
        assert!(sessions.enter(&id.to_string(), caller(1)).is_err());
    }

    #[test]
    fn the_id_says_which_of_several_servers_knows_it() {
        let sessions = Sessions::new(Some("48879".parse().unwrap()));
        let id = sessions.begin(caller(1)).unwrap();
        assert_eq!(&id.to_string()[24..28], "beef");
        assert_eq!(sessions.enter(&id.to_string(), caller(1)).unwrap(), id);
    }

    #[test]
    fn a_request_is_cancelled_by_its_id_in_its_own_session_only() {
        let sessions = Sessions::default();
        let (one, other) = (sessions.begin(caller(1)).unwrap(), sessions.begin(caller(1)).unwrap());
        let request = RequestId::Number(1);
        let running = sessions.run(one, request.clone()).unwrap();
        assert!(sessions.run(one, request.clone()).is_err());
        sessions.cancel(other, &request);
        assert!(!running.cancelled.is_cancelled());
        sessions.cancel(one, &request);
        assert!(running.cancelled.is_cancelled());
        drop(running);
        let running = sessions.run(one, request).unwrap();
        sessions.end(one);
        assert!(running.cancelled.is_cancelled());
    }

    #[test]
    fn ten_thousand_sessions_do_not_grow_the_table_and_busy_ones_stay() {
        let sessions = Sessions::default();
        let busy = sessions.begin(caller(0)).unwrap();
        let _running = sessions.run(busy, RequestId::Number(1)).unwrap();
        let mine = sessions.begin(caller(1)).unwrap();
        for _ in 0..10_000 {
            sessions.begin(caller(0)).unwrap();
        }
        assert_eq!(sessions.lock().len(), MAX_OF_ONE + 1);
        assert!(sessions.enter(&busy.to_string(), caller(0)).is_ok());
        // One caller cannot drive out another.
        assert!(sessions.enter(&mine.to_string(), caller(1)).is_ok());
        for number in 2..=20 {
            (0..MAX_OF_ONE).for_each(|_| _ = sessions.begin(caller(number)).unwrap());
        }
        assert_eq!(sessions.lock().len(), MAX);
        assert!(sessions.enter(&busy.to_string(), caller(0)).is_ok());
    }
}
