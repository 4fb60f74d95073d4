//! The mirror, in this process, as configured by a few lines of YAML.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use entrepot::clock::Clock;
use entrepot::config::Config;
use entrepot::registry::CurrentRegistry;
use entrepot::reload::Reload;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::answers::check_common;
use super::bucket::{Bucket, Cloud};
use super::client::{Answer, Request};
use super::secrets;
use super::upstream::Upstream;

/// What the mirror is told: nothing, at first, but to serve no registry that is not named.
#[derive(Clone)]
pub struct Setup {
    lines: Vec<String>,
    /// The listeners, the usual one first.
    listeners: Vec<String>,
    upstreams: Vec<String>,
    unknown_namespaces: &'static str,
    default_upstream: String,
    /// What the cache may take, as keys of a YAML flow mapping.
    budget: String,
    /// Certificates and credentials.
    files: Arc<TempDir>,
}

impl Setup {
    /// No upstreams; the default one is `registry.example`.
    pub fn new() -> Self {
        Self {
            lines: Vec::new(),
            listeners: vec!["{ address: \"127.0.0.1:0\" }".to_owned()],
            upstreams: Vec::new(),
            unknown_namespaces: "deny",
            default_upstream: "\"registry.example\"".to_owned(),
            // However full the disk is that the tests run on.
            budget: "min_free: 0%".to_owned(),
            files: Arc::new(TempDir::new().expect("a directory")),
        }
    }

    /// One more line at the top level.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// The registry `name` is this upstream.
    pub fn upstream(self, name: &str, upstream: &Upstream) -> Self {
        self.upstream_with(name, upstream, "")
    }

    /// The registry `name` is this upstream, with further keys as they stand in a YAML flow mapping.
    pub fn upstream_with(self, name: &str, upstream: &Upstream, keys: &str) -> Self {
        self.endpoints(name, &[upstream.url("")], keys)
    }

    /// The registry `name` is at these URLs.
    pub fn endpoints(mut self, name: &str, urls: &[String], keys: &str) -> Self {
        secrets::plant_file(keys);
        let upstream = format!("  {name:?}: {{ endpoints: {urls:?}, {keys} }}");
        self.upstreams.push(upstream);
        self
    }

    /// Without any upstream.
    pub fn without_upstreams(mut self) -> Self {
        self.upstreams.clear();
        self
    }

    /// Whether the group may delete files, `yes` or `no`.
    pub fn group_access(mut self, whether: &str) -> Self {
        self.budget.push_str(", group_access: ");
        self.budget.push_str(whether);
        self
    }

    /// How long one look through the cache takes.
    pub fn scrub_every(mut self, period: &str) -> Self {
        self.budget.push_str(", scrub_rate: 1GiB, scrub_every: ");
        self.budget.push_str(period);
        self
    }

    /// What the cache may take.
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.budget = format!("min_free: 0%, max_size: {bytes}B");
        self
    }

    /// With this bucket behind the cache.
    pub fn shared(self, bucket: &Bucket) -> Self {
        self.shared_of(bucket, Cloud::Amazon)
    }

    /// The same, by the protocol of `cloud`.
    pub fn shared_of(mut self, bucket: &Bucket, cloud: Cloud) -> Self {
        self.budget.push_str(", shared: ");
        self.budget.push_str(&bucket.keys_of(cloud));
        self
    }

    /// Where a request goes that names no registry.
    pub fn default_upstream(mut self, name: &str) -> Self {
        self.default_upstream = format!("{name:?}");
        self
    }

    /// The registries that are searched for what names none, as a YAML flow sequence.
    pub fn searching(mut self, names: &str) -> Self {
        names.clone_into(&mut self.default_upstream);
        self
    }

    /// One more listener, as a YAML flow mapping.
    pub fn listen(mut self, listener: &str) -> Self {
        self.listeners.push(listener.to_owned());
        self
    }

    /// Serves every public registry.
    pub fn serving_the_public(mut self) -> Self {
        self.unknown_namespaces = "public";
        self
    }

    /// A file beside the configuration; gives its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// With this text as credentials file.
    pub fn credentials(self, text: &str) -> Self {
        secrets::plant_file(text);
        let path = self.file("credentials.yaml", text);
        self.line(&format!("credentials_file: {:?}", text_of(&path)))
    }

    fn yaml(&self, directory: &Path) -> String {
        let mut text = format!(
            "listen: [{}]\n\
             default_upstream: {}\n\
             unknown_namespaces: {}\n\
             cache: {{ directory: {:?}, {} }}\n",
            self.listeners.join(", "),
            self.default_upstream,
            self.unknown_namespaces,
            text_of(directory),
            self.budget
        );
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        if !self.upstreams.is_empty() {
            text.push_str("upstreams:\n");
            text.push_str(&self.upstreams.join("\n"));
        }
        text
    }

    /// What the mirror makes of the configuration alone.
    ///
    /// # Errors
    /// What is wrong with it, as a person reads it.
    pub fn check(&self) -> Result<(), String> {
        let config = Config::from_yaml(&self.yaml(self.files.path()));
        config.map(drop).map_err(|problems| problems.to_string())
    }

    /// Starts the mirror on an empty directory.
    pub async fn start(self) -> Mirror {
        let directory = TempDir::new().expect("a directory");
        self.start_on(Arc::new(directory)).await
    }

    /// Starts the mirror on a directory.
    pub async fn start_on(self, directory: Arc<TempDir>) -> Mirror {
        let Launched {
            stop,
            home,
            addresses,
            clock,
            reload,
            registry,
        } = self.launch(directory.path()).await;
        Mirror {
            address: addresses[0],
            addresses,
            clock,
            reload,
            registry,
            directory,
            setup: self,
            stop: Some(stop),
            home,
        }
    }

    /// Starts the mirror in a runtime of its own, so that it can be killed with everything it has spawned.
    pub async fn start_apart(self, directory: Arc<TempDir>) -> Mirror {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (setup, path) = (self.clone(), directory.path().to_owned());
        let (sender, receiver) = oneshot::channel();
        let running = runtime.handle().spawn(async move {
            let mut launched = setup.launch(&path).await;
            let mut home = std::mem::replace(&mut launched.home, Home::Apart(None));
            let _ = sender.send(launched);
            home.tasks().join_next().await;
        });
        // Not joined: the task ends with the runtime.
        drop(running);
        let launched = receiver.await.expect("it starts");
        let Launched {
            stop,
            addresses,
            clock,
            reload,
            registry,
            ..
        } = launched;
        Mirror {
            address: addresses[0],
            addresses,
            clock,
            reload,
            registry,
            directory,
            setup: self,
            stop: Some(stop),
            home: Home::Apart(Some(runtime)),
        }
    }

    async fn launch(&self, directory: &Path) -> Launched {
        secrets::keep_log();
        let yaml = self.yaml(directory);
        let config = Config::from_yaml(&yaml).unwrap_or_else(|problems| {
            panic!("the configuration is right: {problems}\n{yaml}");
        });
        let clock = Clock::system();
        // It is larger than all the rest of a test.
        let started = Box::pin(entrepot::start(config, clock.clone())).await;
        let mirror = started.unwrap_or_else(|error| panic!("it starts: {error:?}"));
        let addresses = mirror.addresses().to_vec();
        let (reload, registry) = (mirror.reload(), mirror.registry().clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let shutdown = async { drop(stopped.await) };
            Box::pin(mirror.run(shutdown)).await;
        });
        Launched {
            stop,
            home: Home::Here(tasks),
            addresses,
            clock,
            reload,
            registry,
        }
    }
}

/// A mirror that has just been started.
struct Launched {
    stop: oneshot::Sender<()>,
    home: Home,
    addresses: Vec<SocketAddr>,
    clock: Clock,
    reload: Reload,
    registry: CurrentRegistry,
}

/// A path as YAML text can hold it.
fn text_of(path: &Path) -> &str {
    path.to_str()
        .expect("temporary directories have plain names")
}

/// Where the mirror runs.
enum Home {
    /// Beside the test, on the same thread and the same clock.
    Here(JoinSet<()>),
    /// In a runtime of its own.
    Apart(Option<Runtime>),
}

impl Home {
    fn tasks(&mut self) -> &mut JoinSet<()> {
        match self {
            Self::Here(tasks) => tasks,
            Self::Apart(_) => panic!("its tasks are in the other runtime"),
        }
    }
}

/// A running mirror.
pub struct Mirror {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where all its listeners are, that one first.
    pub addresses: Vec<SocketAddr>,
    /// Its time of day.
    pub clock: Clock,
    /// Its cache directory.
    pub directory: Arc<TempDir>,
    /// What answers its requests.
    pub registry: CurrentRegistry,
    reload: Reload,
    setup: Setup,
    stop: Option<oneshot::Sender<()>>,
    home: Home,
}

// === Asking ===

impl Mirror {
    /// The whole answer to a GET.
    pub async fn get(&self, target: &str) -> Answer {
        self.send(Request::get(target)).await
    }

    /// The answer to a HEAD.
    pub async fn head(&self, target: &str) -> Answer {
        self.send(Request::head(target)).await
    }

    /// What `/metrics` says.
    pub async fn metrics(&self) -> String {
        let page = Request::get("/metrics").send(self.address).await;
        String::from_utf8(page.expect(200).to_vec()).expect("text")
    }

    /// The whole answer to a request. It has what every answer must have, or the test fails.
    pub async fn send(&self, request: Request) -> Answer {
        let (method, target) = (request.method().to_owned(), request.target().to_owned());
        let answer = request.send(self.address).await;
        check_common(&method, &target, &answer);
        answer
    }
}

// === Its life ===

impl Mirror {
    /// Tells it to stop; gives when it has drained.
    pub async fn stop(&mut self) {
        self.begin_to_stop();
        self.ended().await;
    }

    /// Tells it to stop, as a first SIGTERM does.
    pub fn begin_to_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until it has drained.
    pub async fn ended(&mut self) {
        while self.home.tasks().join_next().await.is_some() {}
    }

    /// Ends it as a SIGKILL does: nothing runs to its end.
    pub async fn kill(&mut self) {
        let Home::Apart(runtime) = &mut self.home else {
            panic!("only a mirror started apart can be killed");
        };
        let runtime = runtime.take().expect("it has not been killed");
        // Dropping tasks is done when this returns.
        let killing = move || runtime.shutdown_timeout(std::time::Duration::from_secs(5));
        let killed = tokio::task::spawn_blocking(killing).await;
        killed.expect("the runtime ends");
    }

    /// Gives it another configuration while it runs, as a file that was changed does. Gives the keys that wait for a
    /// restart.
    pub fn reconfigure(&mut self, change: impl FnOnce(Setup) -> Setup) -> Vec<&'static str> {
        self.setup = change(self.setup.clone());
        let yaml = self.setup.yaml(self.directory.path());
        let config = Config::from_yaml(&yaml).unwrap_or_else(|problems| {
            panic!("the configuration is right: {problems}\n{yaml}");
        });
        self.reload.apply(config).expect("it can be set up")
    }

    /// The same configuration again, on the same directory.
    pub async fn start_again(&self) -> Self {
        let directory = Arc::clone(&self.directory);
        self.setup.clone().start_on(directory).await
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if let Home::Apart(runtime) = &mut self.home
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}

// === Its directory ===

impl Mirror {
    /// Every file below the cache directory with its length, sorted.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let root = self.directory.path();
        let mut files = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            // A folder may go while it is looked at.
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => folders.push(path),
                    Ok(metadata) => {
                        let below = path.strip_prefix(root).expect("below the root");
                        files.push((below.to_owned(), metadata.len()));
                    }
                    Err(_) => {}
                }
            }
        }
        files.sort();
        files
    }

    /// Where a blob or manifest of this digest is stored.
    pub fn path_of(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').expect("a digest");
        let shelves = self.directory.path().join("v1");
        let place = |shelf: &str| {
            shelves
                .join(shelf)
                .join(algorithm)
                .join(&hex[..2])
                .join(hex)
        };
        let private = place("private");
        if private.exists() {
            private
        } else {
            place("blobs")
        }
    }

    /// Waits until something is stored under this digest and nothing else is under way: that goes on behind answers.
    pub async fn wait_until_stored(&self, digest: &str) {
        while !self.has(digest)
            || !self
                .metrics()
                .await
                .contains("\nentrepot_inflight_fills 0\n")
        {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until nothing waits to be uploaded to the shared tier. Records are noted behind the answer: wait for one of
    /// those first.
    pub async fn wait_until_uploaded(&self) {
        loop {
            let metrics = self.metrics().await;
            let is_zero = |name: &str| metrics.contains(&format!("\nentrepot_{name} 0\n"));
            if is_zero("inflight_fills") && is_zero("shared_waiting") {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Whether something is stored under this digest.
    pub fn has(&self, digest: &str) -> bool {
        self.path_of(digest).exists()
    }
}
