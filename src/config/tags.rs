//! The rules for tags: those of one upstream, those of all, and the flags that are short for some.

use std::time::Duration;

use super::problem::{Findings, Place, Problem};
use super::reader::Section;
use super::value;
use super::written::Written;
use crate::cache::{Lifetime, OnRefusal, TagRule, TagTerms};
use crate::oci::RepositoryPatterns;

// What counts where nobody says anything, as an operator would write it; `docs/configuration.md` repeats it.

const CACHE_MANIFESTS: &str = "yes";
/// The one tag that everybody expects to move.
const IGNORE: &str = "latest";
/// How long a tag is answered without asking upstream whether it moved. A quarter of an hour is what a new release
/// can wait for, and it keeps the questions of a whole fleet down to four an hour.
const TTL: &str = "15m";
/// How long after that a tag is still answered while upstream is asked behind. Not at all: after a push, whoever pulls
/// once the ttl is over is to get what was pushed.
const STALE_WHILE_REVALIDATE: &str = "0s";
/// How long after its ttl a tag is still answered while upstream is in trouble: longer than any outage, and any long
/// week-end.
const STALE_IF_ERROR: &str = "7d";
/// What was taken back, or taken away from us, is not to be had from here either.
const ON_REFUSAL: &str = "deny";

/// What is different for some tags, or usual for all.
#[derive(Default)]
pub(super) struct RawTerms {
    ttl: Option<Written>,
    stale_while_revalidate: Option<Written>,
    stale_if_error: Option<Written>,
    on_not_found: Option<Written>,
    on_unauthorized: Option<Written>,
}

/// One element of `tags`.
pub(super) struct RawTagRule {
    place: Place,
    repositories: Vec<Written>,
    expression: Option<Written>,
    immutable: Option<Written>,
    terms: RawTerms,
}

impl RawTerms {
    /// Takes the keys out of the mapping that they stand in beside others.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            ttl: section.text("ttl"),
            stale_while_revalidate: section.text("stale_while_revalidate"),
            stale_if_error: section.text("stale_if_error"),
            on_not_found: section.text("on_not_found"),
            on_unauthorized: section.text("on_unauthorized"),
        }
    }

    /// What holds where no rule says otherwise; `None` after a problem.
    pub(super) fn usual(self, findings: &Findings) -> Option<TagTerms> {
        let duration =
            |written, default| findings.setting([None, None, written], default, value::duration);
        let on_refusal =
            |written| findings.setting([None, None, written], ON_REFUSAL, value::on_refusal);
        let ttl = duration(self.ttl, TTL);
        let behind = duration(self.stale_while_revalidate, STALE_WHILE_REVALIDATE);
        let stale_if_error = duration(self.stale_if_error, STALE_IF_ERROR);
        let on_not_found = on_refusal(self.on_not_found);
        let on_unauthorized = on_refusal(self.on_unauthorized);
        Some(TagTerms {
            lifetime: Lifetime::Limited(ttl?),
            stale_while_revalidate: behind?,
            stale_if_error: stale_if_error?,
            on_not_found: on_not_found?,
            on_unauthorized: on_unauthorized?,
        })
    }
}

impl RawTagRule {
    /// Takes `tags` out of a mapping.
    pub(super) fn read_all(section: &mut Section<'_>) -> Vec<Self> {
        let rules = section.sections("tags", |rule| Self {
            place: rule.place(),
            repositories: rule.texts("repositories").unwrap_or_default(),
            expression: rule.text("match"),
            immutable: rule.text("immutable"),
            terms: RawTerms::read(rule),
        });
        rules.map(|(_, rules)| rules).unwrap_or_default()
    }

    fn check(&self, findings: &Findings) -> TagRule {
        let patterns = self.repositories.iter();
        let patterns = patterns.filter_map(|text| findings.parse(text, value::repository_pattern));
        let repositories = RepositoryPatterns::new(patterns.collect());
        let tags = self.expression.as_ref();
        let tags = tags.and_then(|text| findings.parse(text, value::expression));
        let duration = |written: &Option<Written>| -> Option<Duration> {
            findings.parse(written.as_ref()?, value::duration)
        };
        let on_refusal = |written: &Option<Written>| -> Option<OnRefusal> {
            findings.parse(written.as_ref()?, value::on_refusal)
        };
        TagRule {
            repositories,
            tags,
            lifetime: self.lifetime(duration(&self.terms.ttl), findings),
            stale_while_revalidate: duration(&self.terms.stale_while_revalidate),
            stale_if_error: duration(&self.terms.stale_if_error),
            on_not_found: on_refusal(&self.terms.on_not_found),
            on_unauthorized: on_refusal(&self.terms.on_unauthorized),
        }
    }

    fn lifetime(&self, ttl: Option<Duration>, findings: &Findings) -> Option<Lifetime> {
        let immutable = self.immutable.as_ref();
        let immutable = immutable.and_then(|text| findings.parse(text, value::boolean));
        if immutable != Some(true) {
            return ttl.map(Lifetime::Limited);
        }
        if self.terms.ttl.is_some() {
            let rule =
                "says `immutable` and `ttl`; a tag that never moves is never asked for again";
            findings.problem(Problem::of_place(self.place.clone(), rule));
        }
        Some(Lifetime::Immutable)
    }
}

/// The rules of one list, in their order.
pub(super) fn rules(raw: &[RawTagRule], findings: &Findings) -> Vec<TagRule> {
    raw.iter().map(|rule| rule.check(findings)).collect()
}

/// What `cache` and `ignore` stand for, each with its flag and its variable; `None` after a problem.
pub(super) fn shorthands(
    cache: [Option<Written>; 3],
    ignore: [Option<Written>; 3],
    findings: &Findings,
) -> Option<Vec<TagRule>> {
    let cache = findings.setting(cache, CACHE_MANIFESTS, value::boolean);
    let ignore = findings.setting(ignore, IGNORE, value::ignore);
    let asked_every_time = |tags| TagRule {
        tags,
        lifetime: Some(Lifetime::Limited(Duration::ZERO)),
        ..TagRule::default()
    };
    if cache? {
        let ignored = ignore?.map(|ignored| asked_every_time(Some(ignored)));
        Some(ignored.into_iter().collect())
    } else {
        Some(vec![asked_every_time(None)])
    }
}
