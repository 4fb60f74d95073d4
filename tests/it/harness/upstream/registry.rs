//! The upstream's default behaviour: a correct registry.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::answer::{Answer, Body};
use super::wire::Seen;
use crate::harness::content::{Image, Manifest, OCI_INDEX, sha256};

/// Everything a registry holds.
#[derive(Debug, Default)]
pub struct Content {
    repositories: HashMap<String, Repository>,
}

#[derive(Debug, Default)]
struct Repository {
    manifests: HashMap<String, Manifest>,
    tags: HashMap<String, String>,
    blobs: HashMap<String, Body>,
}

impl Content {
    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    /// Puts a blob into a repository under a digest, be it right or wrong.
    pub fn put_blob(&mut self, name: &str, digest: &str, body: Body) {
        self.repository(name).blobs.insert(digest.to_owned(), body);
    }

    /// Puts a manifest into a repository under a digest, be it right or wrong.
    pub fn put_manifest(&mut self, name: &str, digest: &str, manifest: Manifest) {
        let manifests = &mut self.repository(name).manifests;
        manifests.insert(digest.to_owned(), manifest);
    }

    /// Lets a tag name a digest.
    pub fn put_tag(&mut self, name: &str, tag: &str, digest: &str) {
        let tags = &mut self.repository(name).tags;
        tags.insert(tag.to_owned(), digest.to_owned());
    }

    /// Removes a tag.
    pub fn remove_tag(&mut self, name: &str, tag: &str) {
        self.repository(name).tags.remove(tag);
    }

    /// Puts an image into a repository under a tag.
    pub fn put_image(&mut self, name: &str, tag: &str, image: &Image) {
        for blob in &image.blobs {
            self.put_blob(name, &sha256(blob), Body::new(blob.clone()));
        }
        let digest = image.manifest.digest();
        self.put_manifest(name, &digest, image.manifest.clone());
        self.put_tag(name, tag, &digest);
    }

    /// What a correct registry answers.
    pub fn answer(&self, request: &Seen) -> Answer {
        if request.method != "GET" && request.method != "HEAD" {
            return Answer::error(405, "UNSUPPORTED");
        }
        if request.path() == "/v2/" {
            return Answer::ok("application/json", "{}");
        }
        let Some((name, kind, reference)) = request.parts() else {
            return Answer::error(404, "NAME_UNKNOWN");
        };
        let Some(repository) = self.repositories.get(name) else {
            return Answer::error(404, "NAME_UNKNOWN");
        };
        match kind {
            "manifests" => repository.manifest(reference),
            "blobs" => repository.blob(reference, request),
            "tags" if reference == "list" => repository.tags(name, request),
            "referrers" => repository.referrers(reference),
            _ => Answer::error(404, "UNSUPPORTED"),
        }
    }
}

impl Repository {
    fn manifest(&self, reference: &str) -> Answer {
        let digest = self.tags.get(reference).map_or(reference, |digest| digest);
        let Some(manifest) = self.manifests.get(digest) else {
            return Answer::error(404, "MANIFEST_UNKNOWN");
        };
        Answer::ok(&manifest.media_type, manifest.bytes.clone())
            .header("Docker-Content-Digest", digest)
            .header("ETag", &format!("\"{digest}\""))
    }

    fn tags(&self, name: &str, request: &Seen) -> Answer {
        let one = |key| request.query(key).into_iter().next();
        let last = one("last").unwrap_or_default();
        let n = one("n").map_or(usize::MAX, |n| n.parse().expect("a number"));
        let mut tags: Vec<&String> = self.tags.keys().filter(|tag| **tag > last).collect();
        tags.sort();
        let is_cut = n < tags.len();
        tags.truncate(n);
        let body = json!({ "name": name, "tags": tags }).to_string();
        let answer = Answer::ok("application/json", body);
        match tags.last() {
            Some(last) if is_cut => {
                let link = format!("</v2/{name}/tags/list?n={n}&last={last}>; rel=\"next\"");
                answer.header("Link", &link)
            }
            _ => answer,
        }
    }

    fn referrers(&self, subject: &str) -> Answer {
        let mut descriptors = Vec::new();
        for (digest, manifest) in &self.manifests {
            let Ok(document) = serde_json::from_slice::<Value>(&manifest.bytes) else {
                continue;
            };
            if document["subject"]["digest"] == subject {
                descriptors.push(json!({
                    "mediaType": manifest.media_type, "digest": digest, "size": manifest.bytes.len(),
                    "artifactType": document["artifactType"], "annotations": document["annotations"],
                }));
            }
        }
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors });
        Answer::ok(OCI_INDEX, index.to_string())
    }

    fn blob(&self, digest: &str, request: &Seen) -> Answer {
        match self.blobs.get(digest) {
            Some(body) => blob(body, digest, request),
            None => Answer::error(404, "BLOB_UNKNOWN"),
        }
    }
}

/// A blob, or the part that the request asks for. The same for a registry and for a file server behind it.
pub fn blob(body: &Body, digest: &str, request: &Seen) -> Answer {
    let etag = format!("\"{digest}\"");
    let mut answer = Answer::ok("application/octet-stream", body.clone())
        .header("Docker-Content-Digest", digest)
        .header("ETag", &etag);
    for (name, value) in &body.headers {
        answer = answer.without_header(name).header(name, value);
    }
    if !body.ranges {
        return answer;
    }
    answer = answer.header("Accept-Ranges", "bytes");
    let asks_for_this = request.header("If-Range").is_none_or(|tag| tag == etag);
    let range = request.header("Range").filter(|_| asks_for_this);
    match range.map(|range| window(range, body.bytes.len())) {
        None => answer,
        Some(Some((from, to))) => {
            let content_range = format!("bytes {from}-{}/{}", to - 1, body.bytes.len());
            answer.status = 206;
            answer
                .header("Content-Range", &content_range)
                .part(from, to)
        }
        Some(None) => {
            Answer::status(416).header("Content-Range", &format!("bytes */{}", body.bytes.len()))
        }
    }
}

/// From where to where a single range goes; `None` when it is unsatisfiable.
fn window(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (from, to) = match (first.parse().ok(), last.parse::<usize>().ok()) {
        (Some(from), Some(last)) => (from, last.saturating_add(1).min(length)),
        (Some(from), None) => (from, length),
        (None, Some(suffix)) => (length.saturating_sub(suffix), length),
        (None, None) => return None,
    };
    (from < to).then_some((from, to))
}
