//! A hyper that errs about what it was given to write: the connection fails, and no byte is wrong.
#![no_main]

use std::sync::LazyLock;

use entrepot::server::trial::{Library, Mood, Moods, Shown, Slip, slip};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let file = tempfile::tempfile().expect("a file");
    Library::over(file).0
});

#[derive(Debug, Arbitrary)]
struct Plan {
    responses: Vec<(u8, u16)>,
    /// 0 waits, the others take so many bytes.
    writes: Vec<u16>,
    after: u8,
    made: Made,
    by: u16,
}

#[derive(Debug, Arbitrary)]
enum Made {
    Skips,
    GoesBack,
    Shortens,
    Copies,
    Drops,
    Delays,
    Flattens,
}

fuzz_target!(|plan: Plan| {
    let shown = |&(head, length): &(u8, u16)| Shown {
        head: "h".repeat(head.into()),
        length: u64::from(length) + 1,
    };
    let responses: Vec<Shown> = plan.responses.iter().take(16).map(shown).collect();
    let mood = |&bytes: &u16| match bytes {
        0 => Mood::Waits,
        bytes => Mood::Takes(bytes.into()),
    };
    let by = usize::from(plan.by);
    let made = match plan.made {
        Made::Skips => Slip::Skips(by),
        Made::GoesBack => Slip::GoesBack(by),
        Made::Shortens => Slip::Shortens(by),
        Made::Copies => Slip::Copies,
        Made::Drops => Slip::Drops,
        Made::Delays => Slip::Delays,
        Made::Flattens => Slip::Flattens,
    };
    let writes = Moods::new(plan.writes.iter().map(mood));
    slip(&LIBRARY, &responses, writes, plan.after.into(), made);
});
