//! Programs: run to their end, or kept as daemons that end with their test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::secrets;

/// What a mirror is called among the processes of a test.
pub(crate) const MIRROR: &str = "mirror";

/// Longest run of one client command. The slowest, an import of a layer of 304 MiB, takes seconds.
const COMMAND_SECONDS: &str = "120";

/// Longest start of a daemon. The slowest, Docker Engine with a containerd of its own, takes two seconds.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Longest orderly end of a daemon, or of a client's download, before it is killed.
const END_WITHIN: Duration = Duration::from_secs(30);

/// Pause between two looks at a foreign process, which has no way to tell us that it is ready or gone.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What `unshare` is told before it becomes the program proper.
const OWN_MOUNTS: [&str; 4] = ["--mount", "--propagation", "private", "--"];

/// Lines of a daemon's log that a failure shows.
const LOG_LINES_SHOWN: usize = 40;

/// A process of this test. Dropping it ends it.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command`; both its outputs go to `<directory>/<name>.log`.
    pub(crate) fn start(name: &str, command: &mut Command, directory: &Path) -> Self {
        let log = directory.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", missing(command.get_program())));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` holds. Fails, with the log, when the process ends first or takes longer than `READY_WITHIN`.
    pub(crate) fn wait_until(&mut self, ready: impl Fn() -> bool) {
        let ended = self.wait_until_or_ended(ready);
        assert!(!ended, "{} has ended:\n{}", self.name, self.log_end());
    }

    /// Waits until `ready` holds or the process ends; gives whether it has ended. Fails, with the log, when that takes
    /// longer than `READY_WITHIN`.
    pub(crate) fn wait_until_or_ended(&mut self, ready: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + READY_WITHIN;
        while !ready() {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            assert!(
                Instant::now() < deadline,
                "{} is not ready:\n{}",
                self.name,
                self.log_end()
            );
            thread::sleep(LOOK_AGAIN);
        }
        false
    }

    /// All the process has written.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Empties the log, for a successor that writes to the same file.
    pub(crate) fn forget_log(&self) {
        self.keep_log();
        File::create(&self.log).unwrap();
    }

    /// Keeps what a mirror has written for those who look for secrets in it.
    fn keep_log(&self) {
        if self.name == MIRROR {
            secrets::keep_log(&self.log);
        }
    }

    /// SIGTERM, without waiting for what follows.
    pub(crate) fn ask_to_stop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        }
    }

    /// Waits until the process ends. It is killed when it does not; the status then says so.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + END_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(LOOK_AGAIN);
        }
        self.kill()
    }

    /// Asks the process to end, and waits.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.wait()
    }

    /// SIGKILL: what a power cut or the OOM killer leaves behind.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
        self.keep_log();
        if thread::panicking() {
            eprintln!(
                "--- end of the log of {} ---\n{}",
                self.name,
                self.log_end()
            );
        }
    }
}

/// A command bounded in time.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["--foreground", "--kill-after=5", COMMAND_SECONDS])
        .arg(program);
    command
}

/// A command bounded in time whose mounts are its own: none is left when it ends, however it ends.
pub(crate) fn command_with_own_mounts(program: &str) -> Command {
    let mut command = command("unshare");
    command.args(OWN_MOUNTS).arg(program);
    command
}

/// A daemon's command whose mounts are its own, as above.
pub(crate) fn daemon_with_own_mounts(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(OWN_MOUNTS).arg(program);
    command
}

/// Runs `command` to its end, whatever that is.
pub(crate) fn outcome(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", missing(command.get_program())))
}

/// Runs `command`, which must succeed, and returns what it wrote to standard output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = outcome(command);
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8(output.stdout).expect("the output of a client is text")
}

/// A port that nothing listens on, on either family.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))
        .or_else(|_| TcpListener::bind(("127.0.0.1", 0)))
        .unwrap();
    listener.local_addr().unwrap().port()
}

/// Whether something accepts connections on `port` of loopback.
pub(crate) fn accepts(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn missing(program: &OsStr) -> String {
    format!(
        "cannot run {}: `tests/run` installs what these tests need",
        program.display()
    )
}
