//! Lines on their way to standard error, written many at once.
//!
//! Every request is a line, and a write for each would take as much time as the answer. So a thread of its own writes
//! what there is, then rests for a moment while more gathers: a line that comes alone is out at once, and none stays
//! longer than [`REST`]. A warning or an error takes all before it along and is out before whoever says it goes on.
//! Where nobody reads standard error, whoever has something to say waits, as with any write.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long lines gather after some were written: long enough that the thread does not show, too short for anybody
/// who reads along.
const REST: Duration = Duration::from_millis(5);

/// Most bytes that gather before whoever has more to say waits until they are out.
const GATHERED_BYTES_MAX: usize = 256 * 1024;

/// Takes lines. Cheap to clone; all clones keep one order.
pub(super) struct Lines<W>(Arc<Inner<W>>);

struct Inner<W> {
    gathered: Mutex<Gathered>,
    /// Told when there is something for a thread that waits.
    came: Condvar,
    /// Where they go. Taken before the lines are, so that they stay in order.
    out: Mutex<W>,
}

#[derive(Default)]
struct Gathered {
    lines: Vec<u8>,
    /// Whether the thread waits to be told. While it rests it looks again by itself.
    is_waiting: bool,
    is_over: bool,
}

/// Writes what is left when it is dropped, and ends the thread.
pub struct LastLines<W: Write + Send + 'static = io::Stderr>(Lines<W>);

impl<W> Clone for Lines<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W: Write + Send + 'static> Lines<W> {
    /// Lines that go to `out`, and what makes sure of the last ones.
    pub(super) fn to(out: W) -> (Self, LastLines<W>) {
        let lines = Self(Arc::new(Inner {
            gathered: Mutex::default(),
            came: Condvar::new(),
            out: Mutex::new(out),
        }));
        let writer = lines.clone();
        let thread = thread::Builder::new().name("log".to_owned());
        // Without the thread there is nobody to gather for.
        let is_over = thread.spawn(move || writer.write_until_over()).is_err();
        lines.gathered().is_over = is_over;
        (lines.clone(), LastLines(lines))
    }

    /// Takes a line.
    pub(super) fn add(&self, line: &[u8], is_urgent: bool) {
        let mut gathered = self.gathered();
        gathered.lines.extend_from_slice(line);
        if is_urgent || gathered.is_over || gathered.lines.len() >= GATHERED_BYTES_MAX {
            drop(gathered);
            self.write();
        } else if gathered.is_waiting {
            gathered.is_waiting = false;
            self.0.came.notify_one();
        }
    }

    /// Writes what has gathered. Where that fails there is nobody left to tell.
    fn write(&self) {
        let mut out = lock(&self.0.out);
        let lines = std::mem::take(&mut self.gathered().lines);
        let _ = out.write_all(&lines).and_then(|()| out.flush());
    }

    fn write_until_over(&self) {
        loop {
            let mut gathered = self.gathered();
            while gathered.lines.is_empty() && !gathered.is_over {
                gathered.is_waiting = true;
                let came = self.0.came.wait(gathered);
                gathered = came.unwrap_or_else(PoisonError::into_inner);
            }
            if gathered.is_over {
                return;
            }
            drop(gathered);
            self.write();
            thread::sleep(REST);
        }
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        lock(&self.0.gathered)
    }
}

impl<W: Write + Send + 'static> Drop for LastLines<W> {
    fn drop(&mut self) {
        self.0.gathered().is_over = true;
        self.0.0.came.notify_one();
        self.0.write();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Tells of every write.
    struct Told(mpsc::Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The last ones may come when the test is through.
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines() -> (Lines<Told>, LastLines<Told>, mpsc::Receiver<Vec<u8>>) {
        let (told, writes) = mpsc::channel();
        let (lines, rest) = Lines::to(Told(told));
        (lines, rest, writes)
    }

    #[test]
    fn a_line_that_comes_alone_is_written_by_itself() {
        let (lines, _rest, writes) = lines();
        lines.add(b"one\n", false);
        assert_eq!(writes.recv().expect("a write"), b"one\n");
        lines.add(b"two\n", false);
        assert_eq!(writes.recv().expect("a write"), b"two\n");
    }

    #[test]
    fn many_lines_take_few_writes_and_stay_in_order() {
        let (lines, rest, writes) = lines();
        let written: Vec<u8> = (0..10_000)
            .flat_map(|n| format!("line {n}\n").into_bytes())
            .collect();
        for line in written.split_inclusive(|byte| *byte == b'\n') {
            lines.add(line, false);
        }
        drop(rest);
        drop(lines);
        let writes: Vec<_> = writes.iter().filter(|write| !write.is_empty()).collect();
        assert_eq!(writes.concat(), written);
        assert!(writes.len() < 1_000, "{}", writes.len());
    }

    #[test]
    fn what_is_urgent_takes_along_what_came_before_it() {
        let (lines, _rest, writes) = lines();
        lines.add(b"first\n", false);
        lines.add(b"warning\n", true);
        let mut so_far: Vec<u8> = Vec::new();
        while !so_far.ends_with(b"warning\n") {
            // It was written before `add` came back.
            so_far.extend(writes.try_recv().expect("written already"));
        }
        assert_eq!(so_far, b"first\nwarning\n");
    }

    #[test]
    fn no_more_gathers_than_may() {
        let (lines, _rest, _writes) = lines();
        for _ in 0..10_000 {
            lines.add(&[b'x'; 100], false);
            assert!(lines.gathered().lines.len() < GATHERED_BYTES_MAX);
        }
    }

    #[test]
    fn after_the_end_every_line_is_written_at_once() {
        let (lines, rest, writes) = lines();
        drop(rest);
        lines.add(b"late\n", false);
        let written: Vec<_> = writes.try_iter().collect();
        assert_eq!(written.concat(), b"late\n");
    }
}
