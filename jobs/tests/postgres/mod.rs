//! A scratch PostgreSQL server, and databases with the queue's tables whose clock is in the test's hands.
//!
//! The server's programs come from Debian's package `postgresql`; where they are missing a test fails and says so. They refuse to run as
//! root, so a test run by root lends them another user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// User and group `nobody` of Debian, or what `/etc/passwd` says.
fn nobody() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = users.lines().find(|line| line.starts_with("nobody:")).map(|line| line.split(':').collect::<Vec<_>>());
    let number = |index: usize| fields.as_ref().and_then(|fields| fields.get(index)?.parse().ok());
    (number(2).unwrap_or(65_534), number(3).unwrap_or(65_534))
}

/// The server's programs, and the folder of its socket.
#[derive(Clone)]
pub struct Programs {
    bin: PathBuf,
    socket: PathBuf,
}

impl Programs {
    /// Those of the newest installed server, for the socket in `socket`.
    pub fn find(socket: &Path) -> Self {
        Self { bin: find_bin(), socket: socket.to_owned() }
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(self.bin.join(program));
        command.args(arguments).current_dir("/").env("LC_ALL", "C");
        if is_root(Path::new("/proc/self")) {
            let (user, group) = nobody();
            command.uid(user).gid(group);
        }
        // Its output goes to files: a server that inherits a pipe would keep it open.
        let output = self.socket.join(format!("{program}.{}.out", std::process::id()));
        let written = fs::File::create(&output).unwrap();
        let status = command.stdout(written.try_clone().unwrap()).stderr(written).status().unwrap();
        assert!(status.success(), "{program}: {}", fs::read_to_string(output).unwrap());
    }

    fn sql(&self, database: &str, text: &str) {
        let host = self.socket.display().to_string();
        self.run("psql", &["-h", &host, "-U", "tester", "-d", database, "-v", "ON_ERROR_STOP=1", "-q", "-c", text]);
    }
}

/// A server on a socket in a folder of its own, without a network port. Stopped when dropped.
pub struct Server {
    folder: TempDir,
    programs: Programs,
}

impl Server {
    pub fn start() -> Self {
        // A socket's path is short: not under a long temporary folder.
        let folder = tempfile::Builder::new().prefix("nspg").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if is_root(folder.path()) {
            let (user, group) = nobody();
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let server = Self { programs: Programs::find(folder.path()), folder };
        let data = server.data();
        let run = |program, arguments: &[&str]| server.programs.run(program, arguments);
        run("initdb", &["-D", &data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]);
        let options = format!("-c listen_addresses='' -c fsync=off -k {}", server.folder.path().display());
        let log = server.folder.path().join("log").display().to_string();
        run("pg_ctl", &["-D", &data, "-w", "-l", &log, "-o", &options, "start"]);
        server
    }

    /// The folder of its socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    /// A database of its own for one test.
    pub fn database(&self, name: &str) -> Database {
        let name = name.chars().take(60).collect::<String>();
        self.programs.sql("postgres", &format!("CREATE DATABASE {name}"));
        let database = Database { programs: self.programs.clone(), name };
        // The first to open the queue makes its tables; then its clock is put into our hands.
        let payloads = tempfile::tempdir().unwrap();
        drop(jobs::queue::open(&database.address(payloads.path())).unwrap());
        database.sql(
            "CREATE TABLE test_time (ahead interval NOT NULL); INSERT INTO test_time VALUES ('0'); \
             CREATE OR REPLACE FUNCTION nightshift_now() RETURNS timestamptz LANGUAGE sql VOLATILE \
             AS 'SELECT clock_timestamp() + (SELECT ahead FROM test_time)'",
        );
        database
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.programs.run("pg_ctl", &["-D", &self.data(), "-m", "immediate", "-w", "stop"]);
    }
}

/// One database; its clock is the real one plus what the test lets pass.
pub struct Database {
    programs: Programs,
    name: String,
}

impl Database {
    /// One that another process made, on the server behind a socket.
    pub fn found(socket: &Path, name: &str) -> Self {
        Self { programs: Programs::find(socket), name: name.to_owned() }
    }

    /// The queue's address, its payloads in a folder.
    pub fn address(&self, payloads: &Path) -> String {
        let [host, store] =
            [&self.programs.socket, payloads].map(|path: &Path| path.display().to_string().replace('/', "%2F"));
        format!("postgres://tester@{host}/{}?store=spool:{store}", self.name)
    }

    /// Lets time pass for all who use it.
    pub fn pass(&self, time: Duration) {
        self.sql(&format!("UPDATE test_time SET ahead = ahead + interval '{} milliseconds'", time.as_millis()));
    }

    /// Changes the tables behind the queue's back.
    pub fn sql(&self, text: &str) {
        self.programs.sql(&self.name, text);
    }
}

fn is_root(owned: &Path) -> bool {
    fs::metadata(owned).unwrap().uid() == 0
}

fn find_bin() -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop().expect("no PostgreSQL server in /usr/lib/postgresql: install it with `apt-get install postgresql`")
}
