//! `cache.shared`: the object store behind the directory.

use super::problem::{Findings, Place, Problem, Rule};
use super::reader::Section;
use super::written::Written;
use super::{upstreams, value};
use crate::storage::shared::{AccessKey, Config, Prefix, Provider};

/// Whether the bucket stands in the path where there is an endpoint: what serves itself seldom has a name per bucket.
const PATH_STYLE: &str = "yes";

/// `cache.shared` as it was written.
pub(super) struct RawShared {
    place: Place,
    url: Option<Written>,
    endpoint: Option<Written>,
    region: Option<Written>,
    access_key: Option<Written>,
    secret_key: Option<Written>,
    path_style: Option<Written>,
    ca: Option<Written>,
}

/// What a URL of the store says.
struct StoreUrl {
    provider: Provider,
    bucket: String,
    prefix: Prefix,
}

impl RawShared {
    /// Takes the keys.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            place: section.place(),
            url: section.text("url"),
            endpoint: section.text("endpoint"),
            region: section.text("region"),
            access_key: section.text("access_key").map(Written::into_secret),
            secret_key: section.text("secret_key").map(Written::into_secret),
            path_style: section.text("path_style"),
            ca: section.path("ca"),
        }
    }

    /// The store that is meant; `None` after a problem was taken down.
    pub(super) fn check(&self, findings: &Findings) -> Option<Config> {
        let problem = |rule: String| findings.problem(Problem::of_place(self.place.clone(), rule));
        if self.url.is_none() {
            problem("has no url, such as s3://bucket/prefix".to_owned());
        }
        let url = self.url.as_ref();
        let url = url.and_then(|written| findings.parse(written, store_url));
        let endpoint = self.endpoint.as_ref();
        let endpoint = endpoint.map(|written| findings.parse(written, value::endpoint));
        let path_style = findings.setting(
            [None, None, self.path_style.clone()],
            PATH_STYLE,
            value::boolean,
        );
        let access_key = self.access_key();
        let access_key = access_key.map_err(|rule| problem(rule.to_owned())).ok();
        let ca = self.ca.as_ref();
        let ca = ca.map(|ca| findings.parse(ca, |path| upstreams::certificates(path, findings)));
        let url = url?;
        if url.provider == Provider::Google && matches!(access_key, Some(Some(_))) {
            problem(
                "takes no access_key for gs://: the account is found by Google's own chain"
                    .to_owned(),
            );
            return None;
        }
        let config = Config {
            provider: url.provider,
            bucket: url.bucket,
            prefix: url.prefix,
            // Without the slash at the end that a URL has and a base must not.
            endpoint: match endpoint {
                Some(endpoint) => Some(endpoint?.as_str().trim_end_matches('/').to_owned()),
                None => None,
            },
            region: self.region.as_ref().map(|region| region.text().to_owned()),
            access_key: access_key?,
            path_style: path_style? && self.endpoint.is_some() || self.says_path_style(),
            ca: match ca {
                Some(ca) => Some(ca?),
                None => None,
            },
        };
        match config.check() {
            Ok(()) => Some(config),
            Err(error) => {
                problem(error.to_string());
                None
            }
        }
    }

    fn says_path_style(&self) -> bool {
        let written = self.path_style.as_ref();
        written.is_some_and(|written| value::boolean(written.text()) == Ok(true))
    }

    /// What is to be shown, where that is written; the other half of it is missing otherwise.
    fn access_key(&self) -> Result<Option<AccessKey>, &'static str> {
        match (&self.access_key, &self.secret_key) {
            (None, None) => Ok(None),
            (Some(name), Some(secret)) => Ok(Some(AccessKey {
                name: name.text().to_owned(),
                secret: secret.text().to_owned(),
            })),
            (Some(_), None) => Err("has an access_key and no secret_key"),
            (None, Some(_)) => Err("has a secret_key and no access_key"),
        }
    }
}

fn store_url(text: &str) -> Result<StoreUrl, Rule> {
    const RULE: &str = "must be s3://BUCKET, gs://BUCKET or az://CONTAINER, with or without a prefix behind it: s3://bucket/prefix";
    let (scheme, rest) = text.split_once("://").ok_or(RULE)?;
    let provider = match scheme {
        "s3" => Provider::S3,
        "gs" => Provider::Google,
        "az" => Provider::Azure,
        _ => return Err(RULE.into()),
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_bucket = |c: char| c.is_ascii_alphanumeric() || ['-', '.', '_'].contains(&c);
    if bucket.is_empty() || !bucket.chars().all(is_bucket) {
        return Err(RULE.into());
    }
    let prefix = Prefix::parse(prefix).map_err(|_| "has a prefix that is no path")?;
    let bucket = bucket.to_owned();
    Ok(StoreUrl {
        provider,
        bucket,
        prefix,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_store_a_bucket_and_a_prefix() {
        let check = |text: &str, bucket: &str, prefix: &str| {
            let url = store_url(text).unwrap_or_else(|rule| panic!("{text}: {rule:?}"));
            assert_eq!(
                (&*url.bucket, url.prefix.as_ref()),
                (bucket, prefix),
                "{text}"
            );
        };
        check("s3://bucket", "bucket", "");
        check("gs://b.example/", "b.example", "");
        check("az://container/a/b", "container", "a/b");
        check("s3://bucket/a/b/", "bucket", "a/b");
        for text in [
            "",
            "bucket",
            "s3://",
            "s3:///a",
            "file:///tmp",
            "s3://a b",
            "s3://b/../c",
        ] {
            assert!(store_url(text).is_err(), "{text}");
        }
    }
}
