//! Which object store, and how it is reached.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::client::Connector;

/// How often one question is asked again at once: as often as a kept connection is closed in the moment it is used.
/// What outlasts that is for the breaker, and for uploads to be tried again later.
const RETRIES_MAX: usize = 1;

/// For how long.
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Which object store, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who has it.
    pub provider: Provider,
    /// The bucket, or the container.
    pub bucket: String,
    /// Below what in it.
    pub prefix: Path,
    /// Base URL, where it is not the provider's own.
    pub endpoint: Option<String>,
    /// Its region, where that matters.
    pub region: Option<String>,
    /// What is shown; `None` for what the cloud's own chain finds: variables, files, the machine's own identity.
    pub access_key: Option<AccessKey>,
    /// Whether the bucket stands in the path and not in the host name.
    pub path_style: bool,
    /// CA certificates (PEM) that are trusted for it, beside the usual ones.
    pub ca: Option<Arc<[u8]>>,
}

/// Who has the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Amazon S3, or what speaks like it.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

/// A name and a secret. Neither is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The key's name; for Azure, the storage account.
    pub name: String,
    /// Its secret.
    pub secret: String,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why no store can be meant.
#[derive(Debug, thiserror::Error)]
#[error("the shared tier cannot be set up: {0}")]
pub struct SetUpError(#[from] object_store::Error);

impl Config {
    /// Whether a store can be meant. Asks nothing.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn check(&self) -> Result<(), SetUpError> {
        self.with(Connector::to_nobody()).map(drop)
    }

    /// The store, asked by `client`.
    pub(super) fn build(
        &self,
        client: reqwest::Client,
    ) -> Result<Arc<dyn ObjectStore>, SetUpError> {
        self.with(Connector::new(client))
    }

    fn with(&self, connector: Connector) -> Result<Arc<dyn ObjectStore>, SetUpError> {
        Ok(match self.provider {
            Provider::S3 => Arc::new(self.s3().with_http_connector(connector).build()?),
            Provider::Google => Arc::new(self.google().with_http_connector(connector).build()?),
            Provider::Azure => Arc::new(self.azure().with_http_connector(connector).build()?),
        })
    }

    fn s3(&self) -> AmazonS3Builder {
        let mut builder = match &self.access_key {
            Some(AccessKey { name, secret }) => AmazonS3Builder::new()
                .with_access_key_id(name)
                .with_secret_access_key(secret),
            None => AmazonS3Builder::from_env(),
        };
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(if self.path_style {
                endpoint.clone()
            } else {
                // The crate wants the bucket's own host then.
                endpoint.replacen("://", &format!("://{}.", self.bucket), 1)
            });
        }
        builder
            .with_bucket_name(&self.bucket)
            .with_virtual_hosted_style_request(!self.path_style)
            .with_allow_http(true)
            // Whoever may write may not always tag.
            .with_disable_tagging(true)
            // One object at a time goes from here, and not every server knows more.
            .with_disable_bulk_delete(true)
            .with_retry(retry())
    }

    fn google(&self) -> GoogleCloudStorageBuilder {
        let mut builder = GoogleCloudStorageBuilder::from_env();
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_base_url(endpoint);
        }
        builder.with_bucket_name(&self.bucket).with_retry(retry())
    }

    fn azure(&self) -> MicrosoftAzureBuilder {
        let mut builder = match &self.access_key {
            Some(AccessKey { name, secret }) => MicrosoftAzureBuilder::new()
                .with_account(name)
                .with_access_key(secret),
            None => MicrosoftAzureBuilder::from_env(),
        };
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        builder
            .with_container_name(&self.bucket)
            .with_allow_http(true)
            .with_disable_tagging(true)
            .with_retry(retry())
    }
}

fn retry() -> RetryConfig {
    RetryConfig {
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
        backoff: BackoffConfig {
            init_backoff: RETRY_PAUSE,
            ..BackoffConfig::default()
        },
    }
}
