//! The queue on PostgreSQL: every scenario of the conformance suite, each in a database of its own, on a scratch server that
//! this test makes and takes away again. The server's programs come from Debian's package `postgresql`; where they are
//! missing the test fails and says so. They refuse to run as root, so a test run by root lends them another user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jobs::queue::conformance::{Yard, run_all};
use jobs::queue::{Queue, open};
use tempfile::TempDir;

/// User and group `nobody` of Debian, or what `/etc/passwd` says.
fn nobody() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = users.lines().find(|line| line.starts_with("nobody:")).map(|line| line.split(':').collect::<Vec<_>>());
    let number = |index: usize| fields.as_ref().and_then(|fields| fields.get(index)?.parse().ok());
    (number(2).unwrap_or(65_534), number(3).unwrap_or(65_534))
}

/// A server on a socket in a folder of its own, without a network port. Stopped when dropped.
struct Server {
    folder: TempDir,
    programs: PathBuf,
}

impl Server {
    fn start() -> Self {
        let programs = find_programs();
        // A socket's path is short: not under a long temporary folder.
        let folder = tempfile::Builder::new().prefix("nspg").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if is_root(folder.path()) {
            let (user, group) = nobody();
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let server = Self { folder, programs };
        let data = server.folder.path().join("data").display().to_string();
        server.run("initdb", &["-D", &data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]);
        let options = format!("-c listen_addresses='' -c fsync=off -k {}", server.folder.path().display());
        let log = server.folder.path().join("log").display().to_string();
        server.run("pg_ctl", &["-D", &data, "-w", "-l", &log, "-o", &options, "start"]);
        server
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).current_dir("/").env("LC_ALL", "C");
        if is_root(Path::new("/proc/self")) {
            let (user, group) = nobody();
            command.uid(user).gid(group);
        }
        // Its output goes to files: a server that inherits a pipe would keep it open.
        let output = self.folder.path().join(format!("{program}.out"));
        let written = fs::File::create(&output).unwrap();
        let status = command.stdout(written.try_clone().unwrap()).stderr(written).status().unwrap();
        assert!(status.success(), "{program}: {}", fs::read_to_string(output).unwrap());
    }

    fn sql(&self, database: &str, text: &str) {
        let host = self.folder.path().display().to_string();
        let options = ["-h", &host, "-U", "tester", "-d", database, "-v", "ON_ERROR_STOP=1", "-q", "-c", text];
        self.run("psql", &options);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.folder.path().join("data").display().to_string();
        self.run("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]);
    }
}

fn is_root(owned: &Path) -> bool {
    fs::metadata(owned).unwrap().uid() == 0
}

fn find_programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop().expect("no PostgreSQL server in /usr/lib/postgresql: install it with `apt-get install postgresql`")
}

/// One database; its clock is the real one plus what the scenario lets pass.
struct Database<'a> {
    server: &'a Server,
    name: String,
    payloads: TempDir,
}

impl<'a> Database<'a> {
    fn new(server: &'a Server, name: &str) -> Self {
        let name = name.chars().take(60).collect::<String>();
        server.sql("postgres", &format!("CREATE DATABASE {name}"));
        let database = Self { server, name, payloads: tempfile::tempdir().unwrap() };
        // The first to open the queue makes its tables; then its clock is put into our hands.
        drop(database.open());
        database.server.sql(
            &database.name,
            "CREATE TABLE test_time (ahead interval NOT NULL); INSERT INTO test_time VALUES ('0'); \
             CREATE OR REPLACE FUNCTION nightshift_now() RETURNS timestamptz LANGUAGE sql VOLATILE \
             AS 'SELECT clock_timestamp() + (SELECT ahead FROM test_time)'",
        );
        database
    }
}

impl Yard for Database<'_> {
    fn open(&self) -> Box<dyn Queue> {
        let host = self.server.folder.path().display().to_string().replace('/', "%2F");
        let store = self.payloads.path().display().to_string().replace('/', "%2F");
        let address = format!("postgres://tester@{host}/{}?store=spool:{store}", self.name);
        open(&address).unwrap().0
    }

    fn pass(&self, time: Duration) {
        let ms = time.as_millis();
        self.server.sql(&self.name, &format!("UPDATE test_time SET ahead = ahead + interval '{ms} milliseconds'"));
    }

    fn unix_ms(&self) -> u64 {
        // Scenarios ask before they let much time pass; a second or two does not matter to them.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
    }
}

#[test]
fn postgresql_passes_every_scenario() {
    let server = Server::start();
    run_all(|name| Box::new(Database::new(&server, name)));
}
