//! Log lines on standard error.
//!
//! Much of what is logged comes from clients and registries. Whatever it is, it stays within its line and does nothing
//! to a terminal: the last step before standard error escapes every control character, however it got there.

use std::cell::RefCell;
use std::fmt::{self, Debug, Write as _};
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, MakeWriter, layer};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry};

pub use super::lines::LastLines;
use super::lines::Lines;

/// Logs for people: one line an event, no colours. The last lines are written when what is returned is dropped.
pub fn start_text(filter: Targets) -> LastLines {
    let (lines, last_lines) = Lines::to(io::stderr());
    let layer = layer()
        .event_format(Line)
        .with_writer(StandardError(lines))
        .log_internal_errors(false);
    start(layer.with_filter(without_echo(filter)));
    last_lines
}

/// Logs for machines: one JSON object an event, its fields beside `timestamp`, `level`, `target` and `message`. As
/// [`start_text`].
pub fn start_json(filter: Targets) -> LastLines {
    let (lines, last_lines) = Lines::to(io::stderr());
    let layer = layer()
        .json()
        .flatten_event(true)
        .with_writer(StandardError(lines))
        .log_internal_errors(false);
    start(layer.with_filter(without_echo(filter)));
    last_lines
}

/// The filter without what is said of each change of a file: where the log is a file beside the configuration, every
/// line of it would be such a change, and lead to the next line.
fn without_echo(filter: Targets) -> Targets {
    filter.with_target("notify", LevelFilter::WARN)
}

fn start(lines: impl Layer<Registry> + Send + Sync) {
    // It fails only where this process logs already; then that is how it logs.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

/// Room for a line of usual length, in bytes.
const LINE_BYTES: usize = 512;

/// An event as a line for people, as `tracing_subscriber` has it without colours and spans, neither of which there are
/// here. It takes half the time, and every request is a line.
struct Line;

impl FormatEvent<Registry, DefaultFields> for Line {
    #[expect(
        clippy::disallowed_methods,
        reason = "a line says when it was written, whatever time a test has set"
    )]
    fn format_event(
        &self,
        _: &FmtContext<'_, Registry, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // Put together here and handed over whole: what is written to a `Writer` goes through two layers, bit by bit.
        let mut line = String::with_capacity(LINE_BYTES);
        // What comes by way of the crate `log` says in fields of its own where it is from.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        push_time(&mut line, SystemTime::now());
        line.push(' ');
        line.push_str(aligned(*metadata.level()));
        line.push(' ');
        line.push_str(metadata.target());
        line.push(':');
        event.record(&mut Fields {
            line: &mut line,
            is_from_log: normalized.is_some(),
        });
        line.push('\n');
        writer.write_str(&line)
    }
}

/// The level, as long as all others.
fn aligned(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => " WARN",
        Level::INFO => " INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

/// Writes a time as RFC 3339 has it, with microseconds. Up to the second it is the same for many lines.
fn push_time(line: &mut String, time: SystemTime) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    LAST.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() || text.is_empty() {
            *second = since.as_secs();
            *text = humantime::format_rfc3339_seconds(time).to_string();
            // The Z comes behind the microseconds.
            text.pop();
        }
        line.push_str(text);
    });
    let mut digits = itoa::Buffer::new();
    // One in front keeps the zeros.
    let digits = digits.format(1_000_000 + since.subsec_micros());
    line.push('.');
    line.push_str(&digits[1..]);
    line.push('Z');
}

/// Writes fields one after the other, the message without its name.
struct Fields<'a> {
    line: &'a mut String,
    /// Whether the event came by way of the crate `log`.
    is_from_log: bool,
}

impl Fields<'_> {
    /// Begins a field; not one that says where an event of the crate `log` is from.
    fn begin(&mut self, field: &Field) -> Option<&mut String> {
        let name = field.name();
        if self.is_from_log && name.starts_with("log.") {
            return None;
        }
        self.line.push(' ');
        if name != "message" {
            self.line.push_str(name);
            self.line.push('=');
        }
        Some(self.line)
    }
}

/// Whether `text` looks the same in quotes, so that nothing of it need be looked at one by one.
fn is_quoted_as_is(text: &str) -> bool {
    let as_is = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    all(text.as_bytes(), as_is)
}

/// Whether `holds` of all `bytes`. Looks at every one of them, which lets the compiler look at many at once.
fn all(bytes: &[u8], holds: impl Fn(u8) -> bool) -> bool {
    bytes
        .iter()
        .fold(true, |so_far, byte| so_far & holds(*byte))
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if let Some(line) = self.begin(field) {
            // Writing to a `String` fails only where the value does, which then says less.
            let _ = write!(line, "{value:?}");
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if let Some(line) = self.begin(field) {
            line.push_str(itoa::Buffer::new().format(value));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if !is_quoted_as_is(value) {
            return self.record_debug(field, &value);
        }
        if let Some(line) = self.begin(field) {
            line.push('"');
            line.push_str(value);
            line.push('"');
        }
    }
}

/// Standard error, for one line after the other.
struct StandardError(Lines<io::Stderr>);

/// The way of one line there.
struct OneLine<'a> {
    lines: &'a Lines<io::Stderr>,
    is_urgent: bool,
}

impl<'a> MakeWriter<'a> for StandardError {
    type Writer = Escaping<OneLine<'a>>;

    fn make_writer(&'a self) -> Self::Writer {
        let is_urgent = true;
        let lines = &self.0;
        Escaping(OneLine { lines, is_urgent })
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        // The more verbose a level, the greater it is.
        let is_urgent = *metadata.level() <= Level::WARN;
        let lines = &self.0;
        Escaping(OneLine { lines, is_urgent })
    }
}

impl Write for OneLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.add(line, self.is_urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines with their control characters escaped, but for the line feed at the end.
///
/// `tracing_subscriber` escapes some of them, in some fields: not those of a field recorded by `%`, and no line feed.
/// JSON has its own escapes, but none for the second block of control characters (U+0080 and up). `\u001b` is the form
/// that is well-formed in a JSON string, too.
struct Escaping<W>(W);

impl<W: Write> Write for Escaping<W> {
    /// Takes one line, which is how `tracing_subscriber::fmt` writes an event.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let (text, end) = match line.split_last() {
            Some((b'\n', text)) => (text, "\n"),
            _ => (line, ""),
        };
        if all(text, |byte| matches!(byte, b' '..=b'~')) {
            self.0.write_all(line)?;
        } else {
            let mut escaped = escape(&String::from_utf8_lossy(text));
            escaped.push_str(end);
            self.0.write_all(escaped.as_bytes())?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            // All of them lie below U+00A0.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339_has_it() {
        for nanoseconds in [0, 999, 1_000, 1_999_999_999, 2_000_000_000, 1_999_999_000] {
            let time =
                UNIX_EPOCH + Duration::from_hours(500_000) + Duration::from_nanos(nanoseconds);
            let mut line = String::new();
            push_time(&mut line, time);
            let expected = humantime::format_rfc3339_micros(time).to_string();
            assert_eq!(line, expected);
        }
    }

    #[test]
    fn a_line_stays_one_line_without_control_characters() {
        let check = |line: &str, expected: &str| {
            let mut written = Escaping(Vec::new());
            written.write_all(line.as_bytes()).expect("written");
            assert_eq!(String::from_utf8(written.0).as_deref(), Ok(expected));
        };
        check("plain\n", "plain\n");
        check("entrepôt\n", "entrepôt\n");
        check("a\r\nERROR forged\n", "a\\u000d\\u000aERROR forged\n");
        check("\x1b[2J\n", "\\u001b[2J\n");
        check("\u{9b}2J\x7f\t\n", "\\u009b2J\\u007f\\u0009\n");
        check("no end", "no end");
        check("", "");
    }

    #[test]
    fn a_line_of_json_stays_json() {
        let line = serde_json::json!({ "agent": "\u{9b}2J\x1b\r\n" }).to_string() + "\n";
        let mut written = Escaping(Vec::new());
        written.write_all(line.as_bytes()).expect("written");
        assert!(
            written
                .0
                .iter()
                .rev()
                .skip(1)
                .all(|byte| (b' '..=b'~').contains(byte))
        );
        let value: serde_json::Value = serde_json::from_slice(&written.0).expect("JSON");
        assert_eq!(value["agent"], "\u{9b}2J\x1b\r\n");
    }
}
