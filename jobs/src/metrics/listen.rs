//! `GET /metrics` for long runs: one request a connection, one connection at a time, with bounds on its bytes and seconds. No
//! other path, no other method, no encryption and no password: bind it to an address that only the scraper reaches.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Metrics;

/// Most bytes of a request.
const REQUEST_LIMIT_BYTES: usize = 8192;
/// Most time from accepting a connection to its answer's last byte; a step is waited for at most so long again.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Pause after a connection that could not be accepted (the process may be out of descriptors).
const PAUSE: Duration = Duration::from_millis(100);

/// A thread that answers. Dropped, it ends.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Binds the address and begins to answer; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be bound, or no thread can be had.
    pub fn start(address: SocketAddr, metrics: Arc<Metrics>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                match stream {
                    // Whoever asked is gone or too slow: nothing to be done about it.
                    Ok(stream) => drop(answer(stream, &metrics)),
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
        })?;
        Ok(Self { address, over, thread: Some(thread) })
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // A connection wakes the thread. Bound to all addresses, it is reached by the loopback one.
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        // Where it cannot be woken it is left behind: the process is about to end.
        if TcpStream::connect_timeout(&address, REQUEST_LIMIT).is_ok()
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
}

fn answer(mut stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let deadline = Instant::now() + REQUEST_LIMIT;
    stream.set_write_timeout(Some(REQUEST_LIMIT))?;
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !is_whole(&request) && request.len() < REQUEST_LIMIT_BYTES {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part)? {
            0 => return Ok(()),
            bytes => request.extend_from_slice(&part[..bytes]),
        }
    }
    let (status, kind, body) = respond(&request, metrics);
    let bytes = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {bytes}\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.flush()
}

fn is_whole(request: &[u8]) -> bool {
    request.windows(4).any(|window| window == b"\r\n\r\n")
}

/// Status line, content type and body for a request's bytes.
#[doc(hidden)]
#[must_use]
pub fn respond(request: &[u8], metrics: &Metrics) -> (&'static str, &'static str, String) {
    const PLAIN: &str = "text/plain; charset=utf-8";
    let told = |status| (status, PLAIN, format!("{status}\n"));
    if !is_whole(request) {
        return told("431 Request Header Fields Too Large");
    }
    let line = request.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return told("400 Bad Request") };
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = words.as_slice() else { return told("400 Bad Request") };
    if !version.starts_with("HTTP/1.") {
        return told("400 Bad Request");
    }
    let path = target.split('?').next().unwrap_or_default();
    match (*method, path) {
        ("GET", "/metrics") => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", metrics.render()),
        ("GET", _) => told("404 Not Found"),
        _ => told("405 Method Not Allowed"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::families::IMAGES;
    use super::*;

    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        // Unread bytes of a request that is too long reset the connection behind the answer.
        let _reset = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn only_get_metrics_is_answered_with_figures() {
        let metrics = Arc::new(Metrics::new());
        metrics.add(&IMAGES, &[], 8192.0);
        let listener = Listener::start("127.0.0.1:0".parse().unwrap(), Arc::clone(&metrics)).unwrap();
        let long = [b"GET /metrics HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; REQUEST_LIMIT_BYTES]].concat();
        for (request, status) in [
            (&b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"[..], "200 OK"),
            (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200 OK"),
            (b"GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
            (b"GET /metrics/../../etc/passwd HTTP/1.1\r\n\r\n", "404 Not Found"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            (b"GET /metrics\r\n\r\n", "400 Bad Request"),
            (b"GET /metrics SPDY/3\r\n\r\n", "400 Bad Request"),
            (b"\xff\xfe \r\n\r\n", "400 Bad Request"),
            (&long, "431 Request Header Fields Too Large"),
        ] {
            let answer = ask(listener.address(), request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
            assert_eq!(answer.contains("nightshift_images_total 8192\n"), status == "200 OK", "{answer}");
        }
        metrics.add(&IMAGES, &[], 1.0);
        assert!(ask(listener.address(), b"GET /metrics HTTP/1.1\r\n\r\n").contains("nightshift_images_total 8193\n"));
        let address = listener.address();
        drop(listener);
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }

    #[test]
    fn a_client_that_goes_away_stops_nothing() {
        let listener = Listener::start("127.0.0.1:0".parse().unwrap(), Arc::new(Metrics::new())).unwrap();
        for part in [&b""[..], b"GET", b"GET /metrics HTTP/1.1\r\n"] {
            TcpStream::connect(listener.address()).unwrap().write_all(part).unwrap();
        }
        assert!(ask(listener.address(), b"GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
    }
}
