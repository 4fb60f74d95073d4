//! Faults in the system calls of another process, by `strace`. It counts the calls of each thread for itself.

use std::path::Path;
use std::process::Command;

use super::process::Daemon;

/// Faults that are being injected. They end when this is dropped.
pub(crate) struct Faults {
    strace: Daemon,
}

impl Faults {
    /// From now on, `process` meets these faults, written as for `--inject`: `pwritev:error=EIO:when=3`.
    pub(crate) fn inject(directory: &Path, process: u32, faults: &[&str]) -> Self {
        let mut command = Command::new("strace");
        command.args(["--follow-forks", "--attach", &process.to_string()]);
        command.args(["--signal=none", "--output=/dev/null"]);
        command.args(faults.iter().map(|fault| format!("--inject={fault}")));
        let mut strace = Daemon::start("strace", &mut command, directory);
        strace.wait_until(|| is_traced(process));
        Self { strace }
    }

    /// No more faults from now on.
    pub(crate) fn end(mut self) {
        self.strace.stop();
    }
}

/// Whether every thread of `process` has a tracer.
fn is_traced(process: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return false;
    };
    threads.flatten().all(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status"));
        status.is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
    })
}
