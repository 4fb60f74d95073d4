//! Requests for lists: the tags of a repository, and what refers to a manifest.

use bytes::Bytes;
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::error::{Content, Error};
use super::log::Entry;
use super::query::{Filter, Page};
use super::response::Builder;
use super::route::{Target, Written};
use super::{Ask, Found, Registry, echo};
use crate::cache::{Listed, Outcome};
use crate::http::Body;
use crate::oci::{Digest, INDEX_MEDIA_TYPE, Tag};

/// Most bytes of one list of referrers, unless a single one has more: what containerd reads of it is 4 × 1048 × 1048.
const REFERRERS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// `{"name","tags"}`.
#[derive(Serialize)]
struct TagsBody<'a> {
    name: &'a str,
    tags: &'a [Tag],
}

impl Registry {
    pub(super) async fn tags(
        &self,
        ask: &Ask,
        target: &Target,
        written: &Written,
        page: &Page,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Error> {
        let source = self.source(ask, target, Content::TagList).await?;
        let found = self.cache.tags(source).await;
        let (outcome, listed) = found.map_err(|error| Error::Cache(error, Content::TagList))?;
        entry.came(outcome);
        let (tags, is_cut) = listed.list.page(page.n, &page.last);
        let mut builder = describe(target, outcome, &listed).media_type("application/json");
        // With `n=0` there is no last one, and no link (distribution-spec: MUST NOT).
        if let (true, Some(last)) = (is_cut, tags.last()) {
            let query = page.next(last.as_str(), target.asked.as_ref());
            builder = builder.next_page(&format!("{}?{query}", written.path));
        }
        let name = &written.name;
        Ok(send(ask, builder, json(&TagsBody { name, tags })))
    }

    pub(super) async fn referrers(
        &self,
        ask: &Ask,
        target: &Target,
        written: &Written,
        (subject, filter): (Digest, &Filter),
        entry: &mut Entry,
    ) -> Result<Found, Error> {
        let source = self.source(ask, target, Content::Referrers).await?;
        let found = self.cache.referrers(source, subject).await;
        let (outcome, listed) = found.map_err(|error| Error::Cache(error, Content::Referrers))?;
        entry.came(outcome);
        let artifact_type = filter.artifact_type.as_deref();
        let page = listed
            .list
            .page(artifact_type, filter.last, REFERRERS_BYTES_MAX);
        let mut builder = describe(target, outcome, &listed).media_type(INDEX_MEDIA_TYPE);
        if artifact_type.is_some() {
            builder = builder.filtered_by_artifact_type();
        }
        if let Some(last) = page.last {
            let query = filter.next(last, target.asked.as_ref());
            builder = builder.next_page(&format!("{}?{query}", written.path));
        }
        let response = send(ask, builder, page.json.into());
        Ok(if listed.list.is_empty() {
            Found::EmptyList(response)
        } else {
            Found::It(response)
        })
    }
}

fn describe<L>(target: &Target, outcome: Outcome, listed: &Listed<L>) -> Builder {
    Builder::new(StatusCode::OK)
        .namespace(echo(target))
        .outcome(outcome)
        .age(listed.age)
}

fn send(ask: &Ask, builder: Builder, body: Bytes) -> Response<Body> {
    if ask.wants_head() {
        builder.head(Some(body.len() as u64))
    } else {
        builder.full(body)
    }
}

fn json<T: Serialize>(body: &T) -> Bytes {
    // Strings always serialise.
    serde_json::to_vec(body).unwrap_or_default().into()
}
