//! The target of a request, and the host it is sent to: every one is routed or refused, and a route is one under its full name.
#![no_main]

use std::sync::LazyLock;

use entrepot::config::Config;
use entrepot::registry::{Ways, trial};
use entrepot::upstream::Directory;
use hyper::Uri;
use libfuzzer_sys::fuzz_target;

/// Everything by which requests are routed.
const CONFIG: &str = "
listen:
  - address: '[::]:3000'
  - { address: '[::]:5001', upstream: registry.k8s.io }
default_upstream: docker.io
domain: mirror.example
hosts: { hub.example: docker.io }
upstreams:
  localhost:5000: { endpoints: ['http://127.0.0.1:1'] }
  registry.example.com:5000: { endpoints: ['http://127.0.0.1:1'], aliases: [registry.example.com, alias.example] }
";

static WAYS: LazyLock<(Ways, Directory)> = LazyLock::new(|| {
    let config = Config::from_yaml(CONFIG).expect("a configuration");
    (config.ways, Directory::new(&config.upstream))
});

fuzz_target!(|bytes: &[u8]| {
    // The target, the host, and whether it came in by the listener with a registry of its own.
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let host = lines.next().and_then(|host| str::from_utf8(host).ok());
    let listener = usize::from(lines.next().is_some());
    let Ok(target) = Uri::try_from(target) else {
        return;
    };
    let (ways, directory) = &*WAYS;
    trial::route(&target, (listener, host), ways, directory);
});
