//! Pipelined requests over a network that takes what it likes and fails when it likes: every byte is right.
#![no_main]

use std::sync::{LazyLock, Mutex};

use entrepot::server::trial::{Ask, Ends, FILE_BYTES, Fault, KINDS, Library, Mood, Moods, play};
use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// Most requests of one connection, as many as clients pipeline.
const ASKS_MAX: usize = 24;

/// Most moods: more are only more of the same.
const MOODS_MAX: usize = 64;

/// Where the server divides a file.
const BITE_BYTES: u64 = 512 * 1024;

static LIBRARY: LazyLock<Mutex<(Library, Ends)>> = LazyLock::new(|| {
    let file = tempfile::tempfile().expect("a file");
    Mutex::new(Library::over(file))
});

#[derive(Debug)]
struct Plan {
    asks: Vec<Ask>,
    reads: Vec<Mood>,
    writes: Vec<Mood>,
}

impl Arbitrary<'_> for Plan {
    fn arbitrary(input: &mut Unstructured<'_>) -> Result<Self> {
        let n = input.int_in_range(1..=ASKS_MAX)?;
        Ok(Self {
            asks: (0..n).map(|_| ask(input)).collect::<Result<_>>()?,
            reads: moods(input)?,
            writes: moods(input)?,
        })
    }
}

fn ask(input: &mut Unstructured<'_>) -> Result<Ask> {
    let is_head = input.ratio(1, 8)?;
    let kind = *input.choose(&KINDS)?;
    let length = match input.int_in_range(0..=7)? {
        // Around the limits.
        0 => (BITE_BYTES * input.int_in_range(1..=3)?)
            .saturating_add_signed(input.int_in_range(-2..=2)?),
        1..=3 => input.int_in_range(0..=100_000)?,
        _ => input.int_in_range(0..=3000)?,
    };
    let offset = input.int_in_range(0..=FILE_BYTES - length)?;
    Ok(Ask::new(is_head, kind, offset, length))
}

fn moods(input: &mut Unstructured<'_>) -> Result<Vec<Mood>> {
    let n = input.int_in_range(0..=MOODS_MAX)?;
    (0..n).map(|_| mood(input)).collect()
}

fn mood(input: &mut Unstructured<'_>) -> Result<Mood> {
    Ok(match input.int_in_range(0..=15)? {
        0 => Mood::Fails(*input.choose(&[
            Fault::Reset,
            Fault::NoBytes,
            Fault::FileEnds,
            Fault::Disk,
        ])?),
        1..=3 => Mood::Waits,
        4..=7 => Mood::Takes(input.int_in_range(1..=300)?),
        8..=13 => Mood::Takes(input.int_in_range(1..=600_000)?),
        _ => Mood::Takes(usize::MAX),
    })
}

fuzz_target!(|plan: Plan| {
    let (library, ends) = &mut *LIBRARY.lock().expect("whoever panics ends the process");
    play(
        library,
        ends,
        &plan.asks,
        Moods::new(plan.reads),
        Moods::new(plan.writes),
    );
});
