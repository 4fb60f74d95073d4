//! The rules that single values are held against.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;
use reqwest::Url;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::LogFormat;
use super::problem::Rule;
use crate::cache::{Amount, OnRefusal};
use crate::oci::{Namespace, PatternError, RepositoryPattern};
use crate::upstream::UnknownNamespaces;

/// Longest duration: a hundred years. It means "for ever" to everybody, and can be added to any date.
const DURATION_MAX: Duration = Duration::from_hours(100 * 365 * 24);

pub(super) fn boolean(text: &str) -> Result<bool, Rule> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" => Ok(true),
        "false" | "no" => Ok(false),
        _ => Err("must be yes, no, true or false".into()),
    }
}

pub(super) fn port(text: &str) -> Result<u16, Rule> {
    text.parse()
        .map_err(|_| "must be a port, a number from 0 to 65535 (0 takes any that is free)".into())
}

/// The path of something that must be there, or be made.
pub(super) fn path(text: &str) -> Result<PathBuf, Rule> {
    if text.is_empty() {
        return Err("must name a file or directory".into());
    }
    Ok(text.into())
}

pub(super) fn address(text: &str) -> Result<SocketAddr, Rule> {
    text.parse().map_err(|_| {
        "must be an IP address and a port, such as [::]:3000, 0.0.0.0:3000 or 127.0.0.1:3000".into()
    })
}

pub(super) fn namespace(text: &str) -> Result<Namespace, Rule> {
    text.parse().map_err(|_| {
        "must be the name of a registry: a host with an optional port, such as ghcr.io or registry.example.com:5000"
            .into()
    })
}

/// A host as requests are sent to it: a name or an address, without a port.
pub(super) fn host(text: &str) -> Result<Namespace, Rule> {
    let host: Option<Namespace> = text.parse().ok();
    let has_port = |host: &Namespace| host.port().is_some() || text.ends_with(":443");
    host.filter(|host| !has_port(host)).ok_or(
        "must be a host name without a port, such as docker.registry.example.com; it counts for every port".into(),
    )
}

/// The same, but no address: names of registries stand in front of it.
pub(super) fn host_name(text: &str) -> Result<Namespace, Rule> {
    host(text)
        .ok()
        .filter(|host| host.ip().is_none())
        .ok_or("must be a host name without a port, such as registry.example.com".into())
}

pub(super) fn unknown_namespaces(text: &str) -> Result<UnknownNamespaces, Rule> {
    match text {
        "public" => Ok(UnknownNamespaces::Public),
        "deny" => Ok(UnknownNamespaces::Deny),
        _ => Err("must be public or deny".into()),
    }
}

/// A base URL of a registry. It may have a path, as Artifactory's have.
pub(super) fn endpoint(text: &str) -> Result<Url, Rule> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or("must be a URL that starts with https:// or http://, such as https://registry.example.com")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "must not hold a user name or password; write them under `credentials` or in the credentials file"
                .into(),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query (?…) or a fragment (#…)".into());
    }
    Ok(url)
}

/// Most connections to one upstream: a process has 1024 descriptors where nobody raised that, and clients need theirs.
const CONNECTIONS_MAX: usize = 512;

/// Most connections for one blob. What more of them would bring is lost again in seams.
const CONNECTIONS_PER_BLOB_MAX: usize = 32;

pub(super) fn connections(text: &str) -> Result<usize, Rule> {
    count(text, CONNECTIONS_MAX)
}

pub(super) fn connections_per_blob(text: &str) -> Result<usize, Rule> {
    count(text, CONNECTIONS_PER_BLOB_MAX)
}

/// Most that one client may be given of anything: more connections than a process has descriptors for.
const PER_CLIENT_MAX: usize = 1_000_000;

pub(super) fn per_client(text: &str) -> Result<usize, Rule> {
    count(text, PER_CLIENT_MAX)
}

fn count(text: &str, max: usize) -> Result<usize, Rule> {
    let number = text.parse().ok();
    number
        .filter(|number| (1..=max).contains(number))
        .ok_or_else(|| format!("must be a number from 1 to {max}").into())
}

/// The units of sizes, in bytes.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A size with its unit, or a part of the file system.
pub(super) fn amount(text: &str) -> Result<Amount, Rule> {
    let rule = "must be a size with its unit, such as 500MiB, 100GiB or 2TB, or a part of the file system from 0% to 100%";
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| rule)?;
    let unit = unit.trim_start();
    if unit == "%" {
        let percent = u8::try_from(number).ok().filter(|percent| *percent <= 100);
        return Ok(Amount::Percent(percent.ok_or(rule)?));
    }
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(rule)?;
    Ok(Amount::Bytes(number.checked_mul(*bytes).ok_or(rule)?))
}

/// A time with its unit.
pub(super) fn duration(text: &str) -> Result<Duration, Rule> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| "must be a time with its unit, such as 30s, 15m, 12h, 7d or 1h 30m")?;
    if duration > DURATION_MAX {
        return Err("must be at most a hundred years".into());
    }
    Ok(duration)
}

/// A time with its unit, or never.
pub(super) fn period(text: &str) -> Result<Option<Duration>, Rule> {
    if text == "never" {
        return Ok(None);
    }
    let period = duration(text).ok().filter(|period| !period.is_zero());
    let rule =
        "must be a time with its unit, such as 24h or 7d, of at most a hundred years, or never";
    period.map(Some).ok_or(rule.into())
}

/// A size that is meant for a second.
pub(super) fn rate(text: &str) -> Result<u64, Rule> {
    match amount(text) {
        Ok(Amount::Bytes(bytes)) if bytes > 0 => Ok(bytes),
        Ok(Amount::Bytes(_) | Amount::Percent(_)) | Err(_) => Err(
            "must be a size with its unit, for each second, such as 500KiB, 32MiB or 1GiB".into(),
        ),
    }
}

/// An expression that is looked for in tags; an empty one would be found in every tag, and means none.
pub(super) fn ignore(text: &str) -> Result<Option<Regex>, Rule> {
    if text.is_empty() {
        return Ok(None);
    }
    expression(text).map(Some)
}

/// An expression that is looked for anywhere in a text.
pub(super) fn expression(text: &str) -> Result<Regex, Rule> {
    Regex::new(text).map_err(|error| {
        // The last line says what is wrong; those above draw the expression, which may hold what was filled in.
        let message = error.to_string();
        let reason = message.lines().last().unwrap_or_default();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        format!("must be a regular expression: {reason}").into()
    })
}

pub(super) fn repository_pattern(text: &str) -> Result<RepositoryPattern, Rule> {
    text.parse().map_err(|error: PatternError| {
        format!("must be a pattern of repositories, such as library/* or team/**: {error}").into()
    })
}

pub(super) fn on_refusal(text: &str) -> Result<OnRefusal, Rule> {
    match text {
        "deny" => Ok(OnRefusal::Deny),
        "serve" => Ok(OnRefusal::Serve),
        _ => Err("must be deny or serve".into()),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, Rule> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be text or json".into()),
    }
}

/// A level, or several parted by commas, each after the first for one part of the program.
pub(super) fn log_filter(text: &str) -> Result<Targets, Rule> {
    let rule = "must be error, warn, info, debug, trace or off, or several such as info,entrepot::upstream=debug";
    // A word that is no level would be taken for a part of the program, and switch everything else off.
    let is_directive = |directive: &str| {
        let level = directive
            .rsplit_once('=')
            .map_or(directive, |(_, level)| level);
        !level.is_empty() && level.parse::<LevelFilter>().is_ok()
    };
    if !text.split(',').all(is_directive) {
        return Err(rule.into());
    }
    text.parse().map_err(|_| rule.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans() {
        for (text, expected) in [
            ("true", true),
            ("yes", true),
            ("YES", true),
            ("false", false),
            ("no", false),
        ] {
            assert_eq!(boolean(text), Ok(expected));
        }
        for text in ["", "1", "on", "y"] {
            assert!(boolean(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ports_and_addresses() {
        assert_eq!(port("0"), Ok(0));
        assert_eq!(port("65535"), Ok(65535));
        for text in ["", "65536", "-1", "http", "3000/tcp"] {
            assert!(port(text).is_err(), "{text:?}");
        }
        assert!(address("[::]:3000").is_ok() && address("127.0.0.1:0").is_ok());
        for text in ["", ":3000", "3000", "localhost:3000", "::3000", "[::]"] {
            assert!(address(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn hosts_have_no_port() {
        for text in [
            "example.com",
            "EXAMPLE.com.",
            "10.0.0.1",
            "[::1]",
            "localhost",
        ] {
            assert!(host(text).is_ok(), "{text:?}");
        }
        for text in ["", "a:80", "a:443", "*.a", "a/b", "http://a", "::1", "1.2"] {
            assert!(host(text).is_err(), "{text:?}");
        }
        assert!(host_name("example.com").is_ok());
        assert!(host_name("10.0.0.1").is_err() && host_name("example.com:80").is_err());
    }

    #[test]
    fn endpoints() {
        for text in [
            "https://ghcr.io",
            "http://10.0.0.5:5000",
            "https://h/artifactory/api/docker/hub/",
        ] {
            assert!(endpoint(text).is_ok(), "{text:?}");
        }
        for text in [
            "",
            "ghcr.io",
            "ftp://ghcr.io",
            "file:///etc",
            "https://",
            "https://u@h",
            "https://u:p@h",
            "https://:p@h",
            "https://h?x",
            "https://h#x",
            "https://h:99999",
        ] {
            assert!(endpoint(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_carry_units() {
        let check = |text: &str, expected: Option<Amount>| {
            assert_eq!(amount(text).ok(), expected, "{text}");
        };
        check("100GiB", Some(Amount::Bytes(100 << 30)));
        check("500 MiB", Some(Amount::Bytes(500 << 20)));
        check("2TB", Some(Amount::Bytes(2_000_000_000_000)));
        check("0B", Some(Amount::Bytes(0)));
        check("80%", Some(Amount::Percent(80)));
        check("0 %", Some(Amount::Percent(0)));
        for wrong in [
            "",
            "100",
            "GiB",
            "-1GiB",
            "1.5GiB",
            "101%",
            "300%",
            "1 gib",
            "99999999TiB",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn rates_and_periods_carry_units() {
        assert_eq!(rate("32MiB"), Ok(32 << 20));
        for text in ["", "0B", "10%", "32", "32MiB/s"] {
            assert!(rate(text).is_err(), "{text:?}");
        }
        assert_eq!(period("7d"), Ok(Some(Duration::from_hours(7 * 24))));
        assert_eq!(period("never"), Ok(None));
        for text in ["", "0s", "7", "no", "101y"] {
            assert!(period(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn durations_carry_units() {
        assert_eq!(duration("15m"), Ok(Duration::from_mins(15)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(7 * 24)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for text in [
            "",
            "15",
            "m",
            "-1s",
            "15 parsecs",
            "101y",
            "99999999999999999999y",
        ] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn expressions() {
        let found = ignore("latest").expect("an expression").expect("not empty");
        assert!(found.is_match("latest-alpine") && !found.is_match("v1"));
        assert!(ignore("").expect("empty").is_none());
        assert_eq!(
            ignore("(a").expect_err("unclosed"),
            "must be a regular expression: unclosed group"
        );
    }

    #[test]
    fn log_levels() {
        for text in [
            "info",
            "OFF",
            "info,entrepot=debug",
            "warn,entrepot::upstream=trace,hyper=off",
        ] {
            assert!(log_filter(text).is_ok(), "{text:?}");
        }
        for text in [
            "",
            "verbose",
            "info,",
            "entrepot",
            "entrepot=loud",
            "info,entrepot=",
        ] {
            assert!(log_filter(text).is_err(), "{text:?}");
        }
    }
}
