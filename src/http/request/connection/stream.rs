//! The bytes of a connection, as far as they are wanted.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use actix_web::web::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::head_end::HeadEnd;
use super::{Connection, Place, Wanted};

/// How much of a head actix-web gets before it must decode it.
const HEAD_PIECE: usize = 4 * 1024;
/// The same of a body that did not announce its length.
const BODY_PIECE: usize = 16 * 1024;

/// How long a client may make the server wait.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the next request to begin.
    pub idle: Duration,
    /// For the rest of its head.
    pub head: Duration,
    /// For the client to read something of an answer.
    pub answer: Duration,
}

/// A connection under actix-web.
pub struct Stream {
    tcp: TcpStream,
    connection: Connection,
    patience: Patience,
    /// What was read since the task was last polled.
    piece: usize,
    /// What came in one piece with a head but lies behind its end. actix-web gets it once it is wanted: a request that it
    /// decodes while it answers the one before would end the connection.
    ahead: Bytes,
    head_end: HeadEnd,
    /// How many requests had come when the wait for a head began, and whether some of that head has come.
    waiting: (u64, bool),
    head_due: Option<Pin<Box<Sleep>>>,
    /// Set while the client reads nothing.
    answer_due: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl Stream {
    pub fn new(tcp: TcpStream, patience: Patience, place: Place) -> Self {
        Self {
            tcp,
            connection: Connection::default(),
            patience,
            piece: 0,
            ahead: Bytes::new(),
            head_end: HeadEnd::default(),
            waiting: (0, false),
            head_due: None,
            answer_due: None,
            _place: place,
        }
    }

    /// What the connection's requests need of it.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Reads at most `most` bytes, and returns how many.
    fn read_some(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let room = buf.remaining().min(most);
        if !self.ahead.is_empty() {
            let part = self.ahead.split_to(room.min(self.ahead.len()));
            buf.put_slice(&part);
            return Poll::Ready(Ok(part.len()));
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buf.advance(count);
        Poll::Ready(Ok(count))
    }

    /// Reads a piece. After it, actix-web gets nothing until it has looked at it.
    fn read_piece(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        if self.piece >= length {
            self.piece = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = self.read_some(cx, buf, length - self.piece);
        match &count {
            Poll::Ready(Ok(count)) => self.piece += count,
            _ => self.piece = 0,
        }
        count
    }

    /// Reads of the next request's head. Ends the connection if none comes.
    fn read_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let requests = self.connection.requests();
        if self.waiting.0 != requests {
            self.waiting = (requests, false);
            self.head_due = None;
        }
        let before = buf.filled().len();
        if self.read_piece(cx, buf, HEAD_PIECE)?.is_ready() {
            self.hold_back(buf, before);
            if !self.waiting.1 {
                self.waiting.1 = true;
                self.head_due = None;
            }
            return Poll::Ready(Ok(()));
        }
        let patience = if self.waiting.1 { self.patience.head } else { self.patience.idle };
        let due = self.head_due.get_or_insert_with(|| Box::pin(sleep(patience)));
        // To actix-web, the client has closed the connection.
        due.as_mut().poll(cx).map(Ok)
    }

    /// Keeps what lies behind the end of a head, but for a body that has come whole: an operation that reads no body would
    /// otherwise end the connection.
    fn hold_back(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let read = &buf.filled()[before..];
        let Some(head) = self.head_end.find(read) else { return };
        let end = head.end.saturating_add(head.body);
        let end = if end > read.len() { head.end } else { end };
        self.connection.brought((end - head.end) as u64);
        if end == read.len() {
            return;
        }
        self.ahead = [&read[end..], &self.ahead].concat().into();
        buf.set_filled(before + end);
        // actix-web must decode the head before it gets more.
        self.piece = HEAD_PIECE;
    }

    /// Reads nothing, but notices if the client closes the connection.
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut byte = [0];
        let seen = self.tcp.poll_peek(cx, &mut ReadBuf::new(&mut byte))?;
        if seen == Poll::Ready(0) {
            return Poll::Ready(Ok(()));
        }
        self.connection.park(cx.waker());
        Poll::Pending
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.connection.wanted() {
            Wanted::Head => this.read_head(cx, buf),
            Wanted::Body(None) => this.read_piece(cx, buf, BODY_PIECE).map_ok(drop),
            Wanted::Body(Some(left)) if left > 0 => {
                let count = ready!(this.read_some(cx, buf, usize::try_from(left).unwrap_or(usize::MAX)))?;
                this.connection.received(count);
                Poll::Ready(Ok(()))
            }
            Wanted::Body(_) | Wanted::Nothing => this.watch(cx),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.tcp).poll_write(cx, bytes);
        if written.is_ready() {
            this.answer_due = None;
            return written;
        }
        let patience = this.patience.answer;
        let due = this.answer_due.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(due.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::IpAddr;
    use std::time::Instant;

    use actix_web::rt::System;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    use super::*;
    use crate::http::request::connection::Visitors;

    const PATIENT: Patience = Patience {
        idle: Duration::from_mins(1),
        head: Duration::from_mins(1),
        answer: Duration::from_mins(1),
    };
    const BRIEF: Duration = Duration::from_millis(50);

    #[test]
    fn a_request_is_held_back_until_the_one_before_it_is_answered() {
        System::new().block_on(async {
            let (mut stream, mut client) = connect(PATIENT);
            let connection = stream.connection().clone();
            let post =
                |body: &str| format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let posts = [post("first"), post(&"second".repeat(1_000)), post("third")].concat();
            client.write_all(posts.as_bytes()).unwrap();
            let mut seen = Vec::with_capacity(64 * 1024);
            // The long body comes in pieces, the short ones come with their heads.
            for (length, left) in [(5, 0), (6_000, 6_000), (5, 0)] {
                let begun = seen.len();
                let head = stream.read_buf(&mut seen).await.unwrap();
                let with_body = if left == 0 { length } else { 0 };
                assert!(seen[..seen.len() - with_body].ends_with(b"\r\n\r\n"), "{head} bytes after {begun}");
                let _answering = connection.answer();
                assert_eq!(read(&mut stream).await, None, "it is not asked for more yet");
                let _receiving = connection.receive(Some(length as u64));
                let until = seen.len() + left;
                while seen.len() < until {
                    stream.read_buf(&mut seen).await.unwrap();
                }
                assert_eq!(read(&mut stream).await, None);
            }
            assert_eq!(seen, posts.as_bytes());
        });
    }

    /// A connection, and the client at its other end.
    fn connect(patience: Patience) -> (Stream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let place = Visitors::new(1, 1, "none".parse().unwrap()).enter(IpAddr::from([127, 0, 0, 1])).unwrap();
        (Stream::new(TcpStream::from_std(server).unwrap(), patience, place), client)
    }

    /// What is read within a moment; none if nothing is.
    async fn read(stream: &mut Stream) -> Option<usize> {
        let mut buffer = vec![0; 64 * 1024];
        timeout(BRIEF, stream.read(&mut buffer)).await.ok().map(Result::unwrap)
    }

    #[test]
    fn a_client_that_sends_ahead_is_read_only_as_far_as_is_wanted() {
        System::new().block_on(async {
            let (mut stream, mut client) = connect(PATIENT);
            let connection = stream.connection().clone();
            client.write_all(&vec![b'x'; 32 * 1024]).unwrap();
            assert_eq!(read(&mut stream).await, Some(HEAD_PIECE));
            let answering = connection.answer();
            assert_eq!(read(&mut stream).await, None);
            let receiving = connection.receive(Some(10_000));
            assert_eq!(read(&mut stream).await, Some(10_000));
            assert_eq!(read(&mut stream).await, None);
            drop(receiving);
            assert_eq!(read(&mut stream).await, None);
            drop(answering);
            assert_eq!(read(&mut stream).await, Some(HEAD_PIECE));
            let _answering = connection.answer();
            let _receiving = connection.receive(None);
            assert_eq!(read(&mut stream).await, Some(BODY_PIECE - HEAD_PIECE));
        });
    }

    #[test]
    fn a_task_that_reads_nothing_is_woken_when_something_is_wanted() {
        System::new().block_on(async {
            let (mut stream, mut client) = connect(PATIENT);
            let connection = stream.connection().clone();
            let answering = connection.answer();
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            let later = async {
                tokio::time::sleep(BRIEF).await;
                drop(answering);
            };
            let mut buffer = [0; 100];
            let (count, ()) = tokio::join!(timeout(Duration::from_secs(30), stream.read(&mut buffer)), later);
            assert_eq!(count.unwrap().unwrap(), 18);
        });
    }

    #[test]
    fn a_client_that_leaves_is_noticed_while_it_is_answered() {
        System::new().block_on(async {
            let (mut stream, client) = connect(PATIENT);
            let _answering = stream.connection().answer();
            assert_eq!(read(&mut stream).await, None);
            drop(client);
            assert_eq!(read(&mut stream).await, Some(0));
        });
    }

    #[test]
    fn a_request_that_does_not_come_ends_the_connection() {
        System::new().block_on(async {
            let (mut stream, mut client) = connect(Patience { head: BRIEF, ..PATIENT });
            client.write_all(b"GET").unwrap();
            assert_eq!(stream.read(&mut [0; 100]).await.unwrap(), 3);
            client.write_all(b" /").unwrap();
            assert_eq!(stream.read(&mut [0; 100]).await.unwrap(), 2);
            assert_eq!(stream.read(&mut [0; 100]).await.unwrap(), 0, "the rest of the head is late");
            let (mut stream, _client) = connect(Patience { idle: BRIEF, ..PATIENT });
            assert_eq!(stream.read(&mut [0; 100]).await.unwrap(), 0);
            // An answer may take any time.
            drop(stream.connection().answer());
            let _answering = stream.connection().answer();
            assert_eq!(timeout(4 * BRIEF, stream.read(&mut [0; 100])).await.ok().map(Result::unwrap), None);
        });
    }

    #[test]
    fn a_client_that_reads_nothing_is_given_up() {
        System::new().block_on(async {
            let (mut stream, mut client) = connect(Patience { answer: 4 * BRIEF, ..PATIENT });
            let answer = vec![b'x'; 64 << 20];
            let began = Instant::now();
            let error = stream.write_all(&answer).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(began.elapsed() >= 4 * BRIEF);
            drop(stream);
            let mut read = 0;
            let mut buffer = vec![0; 1 << 20];
            while let Ok(count @ 1..) = client.read(&mut buffer) {
                read += count;
            }
            assert!(read < answer.len());
        });
    }
}
