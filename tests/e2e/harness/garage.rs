//! A real S3 server: Garage, one node on loopback. `cargo install garage` makes it, and `tests/run` does that.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::process::{Daemon, accepts, free_port};

/// The bucket.
const BUCKET: &str = "entrepot";

/// Made-up keys, of the form that Garage wants.
const ACCESS_KEY: &str = "GK00112233445566778899aabb";
const SECRET_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A running Garage with one bucket.
pub(crate) struct Garage {
    daemon: Daemon,
    port: u16,
}

impl Garage {
    /// Starts it with its data below `directory`.
    pub(crate) fn start(directory: &Path) -> Self {
        let (port, rpc_port) = (free_port(), free_port());
        let home = directory.join("garage");
        fs::create_dir_all(&home).unwrap();
        let (config, shown) = (home.join("garage.toml"), home.display());
        let text = format!(
            "metadata_dir = \"{shown}/meta\"\n\
             data_dir = \"{shown}/data\"\n\
             db_engine = \"sqlite\"\n\
             replication_factor = 1\n\
             compression_level = \"none\"\n\
             rpc_bind_addr = \"127.0.0.1:{rpc_port}\"\n\
             rpc_secret = \"{SECRET_KEY}\"\n\
             [s3_api]\n\
             s3_region = \"garage\"\n\
             api_bind_addr = \"127.0.0.1:{port}\"\n"
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("garage");
        command
            .arg("-c")
            .arg(&config)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_BUCKET", BUCKET)
            .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY);
        let mut daemon = Daemon::start("garage", &mut command, directory);
        daemon.wait_until(|| accepts(port));
        Self { daemon, port }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.daemon.kill();
    }

    /// What makes it the shared tier of a mirror, as a YAML flow mapping.
    pub(crate) fn keys(&self) -> String {
        format!(
            "{{ url: \"s3://{BUCKET}/team\", endpoint: \"http://127.0.0.1:{}\", region: garage, \
             access_key: {ACCESS_KEY}, secret_key: {SECRET_KEY} }}",
            self.port
        )
    }
}
