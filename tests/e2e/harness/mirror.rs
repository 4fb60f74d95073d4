//! The program under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use super::digest;
use super::images::Layer;
use super::process::{
    Daemon, MIRROR, accepts, command, daemon_with_own_mounts, free_port, outcome, run,
};
use super::secrets;
use super::upstream::EXAMPLE;

/// The built binary.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_entrepot");

/// Longest wait for what the mirror does behind an answer.
const WITHIN: Duration = Duration::from_secs(30);

/// Pause between two looks at a process that has no way to tell.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A running mirror.
pub(crate) struct Mirror {
    daemon: Daemon,
    port: u16,
    cache: PathBuf,
}

impl Mirror {
    /// Starts the mirror with `flags` and its cache below `directory`. A second one there finds what the first has left.
    pub(crate) fn start(directory: &Path, flags: &[String]) -> Self {
        Self::start_by(Command::new("env"), directory, &[], flags)
    }

    /// Starts the mirror as `start` does, with these variables in its environment, each as `NAME=VALUE`.
    pub(crate) fn start_in(environment: &[String], directory: &Path, flags: &[String]) -> Self {
        Self::start_by(Command::new("env"), directory, environment, flags)
    }

    /// Starts the mirror as `start` does, with its cache on a filesystem of `bytes` of its own.
    pub(crate) fn start_on_own_filesystem(directory: &Path, flags: &[String], bytes: u64) -> Self {
        const MOUNT_AND_RUN: &str =
            r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec env "$@""#;
        let cache = directory.join("cache");
        fs::create_dir(&cache).unwrap();
        let mut runner = daemon_with_own_mounts("sh");
        runner
            .args(["-c", MOUNT_AND_RUN, "sh"])
            .arg(bytes.to_string())
            .arg(&cache);
        let mut mirror = Self::start_by(runner, directory, &[], flags);
        // Its mounts are to be seen through it alone.
        let root = format!("/proc/{}/root", mirror.daemon.pid());
        mirror.cache = Path::new(&root).join(cache.strip_prefix("/").unwrap());
        mirror
    }

    /// Starts the mirror by `runner`, which becomes what its further arguments say, as `env` does.
    fn start_by(
        mut runner: Command,
        directory: &Path,
        environment: &[String],
        flags: &[String],
    ) -> Self {
        let port = free_port();
        let cache = directory.join("cache");
        runner.arg("-i").args(environment);
        if !flags.iter().any(|flag| flag.starts_with("--config")) {
            // How full the disk of this machine is must not decide what a test finds in the cache.
            runner.arg("ENTREPOT_CONFIG_YAML=cache: { min_free: 0% }");
        }
        if secrets::are_looked_for() {
            runner.arg(secrets::LOG_LEVEL);
        }
        runner
            .arg(BINARY)
            .arg(format!("--cache-dir={}", cache.display()))
            .arg(format!("--port={port}"))
            .args(flags);
        Self::started(&mut runner, directory, port, cache)
    }

    /// The mirror that `command` becomes, on `port`, with its cache in `cache`; its log goes below `directory`.
    pub(crate) fn started(
        command: &mut Command,
        directory: &Path,
        port: u16,
        cache: PathBuf,
    ) -> Self {
        let mut daemon = Daemon::start(MIRROR, command, directory);
        daemon.wait_until(|| accepts(port) && says_yes(port, "readyz"));
        Self {
            daemon,
            port,
            cache,
        }
    }

    /// The port of its only listener.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:<port>`, as clients write a registry.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All the mirror has written.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }

    /// Removes everything from the cache directory, as an administrator short of space may at any time.
    pub(crate) fn empty_cache(&self) {
        run(command("find")
            .arg(&self.cache)
            .args(["-mindepth", "1", "-delete"]));
    }

    /// Waits until `/metrics` has this line.
    pub(crate) fn wait_for_metric(&mut self, line: &str) {
        let url = format!("{}/metrics", self.url());
        self.daemon.wait_until(|| {
            let page = run(command("curl").args(["--silent", "--fail", &url]));
            page.lines().any(|found| found == line)
        });
    }

    /// Waits until everything it has is in the shared tier.
    pub(crate) fn wait_until_uploaded(&mut self) {
        self.wait_for_metric("entrepot_inflight_fills 0");
        self.wait_for_metric("entrepot_shared_waiting 0");
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Where its cache is, as seen from here.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Asks for a layer of `repository`, to be written below `directory`. Gives the digest of what came, if it came whole.
    pub(crate) fn fetch(
        &self,
        directory: &Path,
        repository: &str,
        layer: &Layer,
    ) -> Option<String> {
        let received = directory.join("fetched");
        let url = format!(
            "{}/v2/{repository}/blobs/{}?ns={EXAMPLE}",
            self.url(),
            layer.digest
        );
        let ended = outcome(
            command("curl")
                .args(["--silent", "--show-error", "--fail", "--output"])
                .arg(&received)
                .arg(url),
        );
        ended.status.success().then(|| digest::of_file(&received))
    }

    /// What `/metrics` says.
    pub(crate) fn metrics(&self) -> String {
        run(command("curl").args(["--silent", "--fail", &format!("{}/metrics", self.url())]))
    }

    /// Whether it leaves the upstream `namespace` alone, for whatever trouble that is in.
    pub(crate) fn leaves_alone(&self, namespace: &str) -> bool {
        let open = format!("entrepot_upstream_breakers_open{{upstream=\"{namespace}\"}} 1\n");
        self.metrics().contains(&open)
    }

    /// Whether both probes say so.
    pub(crate) fn is_ready_and_alive(&self) -> bool {
        ["readyz", "livez"].map(|probe| says_yes(self.port, probe)) == [true; 2]
    }

    /// Asks for the tag `1.0` of `repository`; gives the status.
    pub(crate) fn asks_for_tag(&self, namespace: &str, repository: &str) -> u16 {
        let url = format!(
            "{}/v2/{repository}/manifests/1.0?ns={namespace}",
            self.url()
        );
        let status = run(command("curl")
            .args(["--silent", "--head", "--output", "/dev/null"])
            .args(["--write-out", "%{http_code}", &url]));
        status.parse().unwrap()
    }

    /// How long each answer took that was about a manifest, by tag or by digest, as this mirror says in its log.
    pub(crate) fn answer_times(&mut self) -> Vec<Duration> {
        // An answer is counted before its line is written.
        let answered = self.sum_of("entrepot_requests_total{");
        self.wait_until(|mirror| mirror.answer_lines().len() as u64 >= answered);
        let lines = self.answer_lines();
        let lines = lines
            .iter()
            .filter(|line| line.contains(" kind=\"manifest\" ") || line.contains(" kind=\"tag\" "));
        let times = lines.filter_map(|line| line.split_once(" ms=")?.1.split(' ').next());
        times
            .map(|time| Duration::from_millis(time.parse().unwrap()))
            .collect()
    }

    /// What this mirror says in its log of each answer.
    fn answer_lines(&self) -> Vec<String> {
        let log = self.log();
        let of_this = log.rsplit_once(" listening ").map_or(&*log, |(_, it)| it);
        let lines = of_this.lines().filter(|line| line.contains(" ms="));
        lines.map(ToOwned::to_owned).collect()
    }

    /// How often storage has failed.
    pub(crate) fn storage_errors(&self) -> u64 {
        self.sum_of("entrepot_storage_errors_total{")
    }

    /// What the lines of `/metrics` add up to that begin so.
    fn sum_of(&self, start: &str) -> u64 {
        let metrics = self.metrics();
        let counts = metrics
            .lines()
            .filter(|line| line.starts_with(start))
            .filter_map(|line| line.rsplit_once(' '));
        counts.map(|(_, count)| count.parse::<u64>().unwrap()).sum()
    }

    /// Waits until `ready` holds of it.
    pub(crate) fn wait_until(&self, ready: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + WITHIN;
        while !ready(self) {
            assert!(Instant::now() < deadline, "{}", self.log());
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Processor time it has used, in hundredths of a second.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // Behind the name, which is in brackets, come the 3rd field and so on; times are the 14th and the 15th.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = fields.split(' ').skip(11).take(2);
        ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// How many files and sockets it has open.
    pub(crate) fn descriptors(&self) -> usize {
        entries(Path::new(&format!("/proc/{}/fd", self.pid()))).len()
    }

    /// A line of its `/proc/PID/status`, in bytes.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let value = status.lines().find_map(|it| it.strip_prefix(line)).unwrap();
        let kib = value.trim_start_matches(':').trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() << 10
    }

    /// Waits until no blob is on its way in.
    pub(crate) fn wait_until_idle(&mut self) {
        let url = self.url();
        self.daemon.wait_until(|| is_idle(&url));
    }

    /// Waits until no blob is on its way in any more, because of whatever end. Gives whether the process has ended.
    pub(crate) fn wait_until_idle_or_ended(&mut self) -> bool {
        let url = self.url();
        self.daemon.wait_until_or_ended(|| is_idle(&url))
    }

    /// Files that are on their way in, or left over.
    pub(crate) fn ingest_files(&self) -> Vec<PathBuf> {
        entries(&self.cache.join("v1/ingest"))
    }

    /// SIGTERM, without waiting for what follows.
    pub(crate) fn ask_to_stop(&mut self) {
        self.daemon.ask_to_stop();
    }

    /// SIGTERM, then the status it ended with.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.daemon.stop()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Every file under a final name of the cache below `directory`, as a digest. Each is hashed on the way.
    pub(crate) fn stored_blobs(&self) -> Vec<String> {
        let mut stored = Vec::new();
        for shard in entries(&self.cache.join("v1/blobs/sha256")) {
            for file in entries(&shard) {
                let named = format!("sha256:{}", file.file_name().unwrap().display());
                assert_eq!(
                    digest::of_file(&file),
                    named,
                    "wrong bytes under a final name"
                );
                stored.push(named);
            }
        }
        stored
    }
}

/// The built binary for a run that ends by itself, with an environment that holds none of its variables.
pub(crate) fn entrepot() -> Command {
    let mut command = command(BINARY);
    command.env_clear();
    command
}

fn is_idle(url: &str) -> bool {
    let url = format!("{url}/metrics");
    let metrics = outcome(command("curl").args(["--silent", "--fail", &url])).stdout;
    String::from_utf8_lossy(&metrics).contains("\nentrepot_inflight_fills 0\n")
}

/// What a probe says.
fn says_yes(port: u16, probe: &str) -> bool {
    let url = format!("http://127.0.0.1:{port}/{probe}");
    outcome(command("curl").args(["--silent", "--fail", "--output", "/dev/null", &url]))
        .status
        .success()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => panic!("{}: {error}", directory.display()),
    }
}
