//! The spool on S3: every scenario of the conformance suite, each under a prefix of its own, against a server on this machine. The
//! server is `moto_server` of the Python package `moto[server]`; where it is missing the test fails and says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use jobs::queue::conformance::{Yard, run_all};
use jobs::queue::{Clock, Queue, open_at};

const BUCKET: &str = "nightshift";
/// What the tests' environment must say: `object_store` takes credentials and endpoint from there.
const ENVIRONMENT: &str = "AWS_ENDPOINT";

struct HandClock(Mutex<Duration>);

impl Clock for HandClock {
    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn unix_ms(&self) -> u64 {
        1_750_000_000_000 + self.0.lock().unwrap().as_millis() as u64
    }

    fn sleep(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

struct Prefix {
    name: String,
    clock: Arc<HandClock>,
}

impl Yard for Prefix {
    fn open(&self) -> Box<dyn Queue> {
        let address = format!("s3://{BUCKET}/{}", self.name);
        open_at(&address, Arc::clone(&self.clock) as Arc<dyn Clock>).unwrap().0
    }

    fn pass(&self, time: Duration) {
        self.clock.sleep(time);
    }

    fn unix_ms(&self) -> u64 {
        self.clock.unix_ms()
    }
}

struct Server(Child);

impl Server {
    /// Starts the server and makes the bucket.
    fn start(port: u16) -> Self {
        let program = std::env::var("MOTO_SERVER").unwrap_or_else(|_| "moto_server".to_owned());
        let child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{program}: {error}: install it with `pip install 'moto[server]'` or name it in MOTO_SERVER")
            });
        let mut server = Self(child);
        // It takes as long as Python takes.
        while request(port, &format!("PUT /{BUCKET}")).is_none() {
            assert!(server.0.try_wait().unwrap().is_none(), "{program} ended at once");
            thread::sleep(Duration::from_millis(100));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Sends a request without a body; true when the answer is 200.
fn request(port: u16, line: &str) -> Option<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    let head = format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.read_line(&mut status).ok()?;
    reader.read_to_end(&mut Vec::new()).ok()?;
    status.contains(" 200 ").then_some(())
}

/// Runs this test program again with the server's address in its environment, which a program cannot change for itself
/// while it has threads.
#[test]
fn s3_passes_every_scenario() {
    if std::env::var_os(ENVIRONMENT).is_some() {
        run_all(|name| {
            let clock = Arc::new(HandClock(Mutex::new(Duration::from_secs(77))));
            Box::new(Prefix { name: name.to_owned(), clock })
        });
        return;
    }
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let _server = Server::start(port);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "s3_passes_every_scenario", "--nocapture"])
        .env(ENVIRONMENT, format!("http://127.0.0.1:{port}"))
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", "us-east-1")
        .status()
        .unwrap();
    assert!(status.success(), "against the server: {status}");
}
