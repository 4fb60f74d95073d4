//! The rules for tags.

use std::time::Duration;

use super::*;
use crate::cache::{Lifetime, OnRefusal};

#[test]
fn a_rule_of_an_upstream_is_over_the_rules_for_all_and_those_over_the_usual() {
    let yaml = r#"
manifests:
  ttl: 1h
  stale_if_error: 3h
  stale_while_revalidate: 1m
  on_not_found: serve
  tags:
    - { match: '^v\d+$', ttl: 2h, on_unauthorized: serve }
upstreams:
  registry.corp:
    aliases: [alias.corp]
    tags:
      - { match: '^v?\d+\.\d+\.\d+$', immutable: true }
      - { repositories: ["team/*", "!team/other"], ttl: 5m, stale_if_error: 24h, on_not_found: deny }
"#;
    let config = load_yaml(yaml, "-i edge", &[]).expect("well-formed");
    let usual = config.tags.usual;
    let hour = Duration::from_hours(1);
    assert_eq!(
        usual,
        TagTerms {
            lifetime: Lifetime::Limited(hour),
            stale_while_revalidate: Duration::from_mins(1),
            stale_if_error: 3 * hour,
            on_not_found: OnRefusal::Serve,
            on_unauthorized: OnRefusal::Deny,
        }
    );
    let check = |image, expected| assert_eq!(terms(&config, image), expected, "{image}");
    let limited = |lifetime| TagTerms {
        lifetime: Lifetime::Limited(lifetime),
        ..usual
    };
    check("ghcr.io/team/app:main", usual);
    check("ghcr.io/team/app:edge", limited(Duration::ZERO));
    let version = TagTerms {
        on_unauthorized: OnRefusal::Serve,
        ..limited(2 * hour)
    };
    check("ghcr.io/team/app:v1", version);
    let team = TagTerms {
        stale_if_error: 24 * hour,
        on_not_found: OnRefusal::Deny,
        ..limited(Duration::from_mins(5))
    };
    check("registry.corp/team/app:main", team);
    // A ttl of its own is worth more than being ignored everywhere.
    check("registry.corp/team/app:edge", team);
    check("registry.corp/team/other:edge", limited(Duration::ZERO));
    let immutable = TagTerms {
        lifetime: Lifetime::Immutable,
        ..usual
    };
    check("registry.corp/team/app:1.2.3", immutable);
}

#[test]
fn every_mistake_in_a_rule_is_told() {
    let yaml = "
manifests: { tags: [{ match: '(', on_not_found: perhaps }] }
upstreams:
  h:
    tags:
      - { repositories: ['Team/*'], ttl: 5, immutable: 1 }
      - { immutable: yes, ttl: 5m, expires: never }
";
    let found = problems(load_yaml(yaml, "", &[]));
    let expected = [
        "2:30: manifests.tags[0].match: \"(\" must be a regular expression",
        "2:49: manifests.tags[0].on_not_found: \"perhaps\" must be deny or serve",
        "6:26: upstreams.h.tags[0].repositories[0]: \"Team/*\" must be a pattern of repositories",
        "6:42: upstreams.h.tags[0].ttl: \"5\" must be a time with its unit",
        "6:56: upstreams.h.tags[0].immutable: \"1\" must be yes, no, true or false",
        "7:9: upstreams.h.tags[1]: says `immutable` and `ttl`",
        "7:36: upstreams.h.tags[1].expires: is not a known key",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found}\n{expected}");
    }
}
