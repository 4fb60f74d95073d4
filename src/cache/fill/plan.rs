//! Which bytes of a blob are there, which are on their way, and which come next. Pure.
//!
//! Whoever receives works on a *run*: a range of missing bytes that nobody else works on. Runs come front to back,
//! unless a reader waits further on: its place comes first. A run may grow over the bytes behind it as long as nobody
//! has taken them, so that one connection alone fills a blob with one request.

use std::collections::BTreeMap;
use std::ops::Range;

use super::extents::Extents;

/// Which run is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RunId(u64);

/// The bytes of one blob, and the work on them.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// `None` while no upstream has said.
    size: Option<u64>,
    present: Extents,
    /// What is still to come of each run.
    runs: BTreeMap<RunId, Range<u64>>,
    next: u64,
    /// Up to where the bytes of a run are being written: nobody else may have those.
    writing: BTreeMap<RunId, u64>,
    /// Where readers wait, and how many.
    waiting: BTreeMap<u64, usize>,
}

impl Plan {
    /// The size of the blob is known.
    pub(super) fn set_size(&mut self, size: u64) {
        self.size = Some(size);
    }

    /// All of the blob is there.
    pub(super) fn set_present(&mut self, size: u64) {
        self.size = Some(size);
        self.present.insert(0..size);
    }

    /// The size of the blob, in bytes, where it is known.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Up to where bytes are there without a gap, from `offset` on.
    pub(super) fn present_from(&self, offset: u64) -> u64 {
        self.present.end_from(offset)
    }

    /// Whether every byte is there.
    pub(super) fn is_complete(&self) -> bool {
        self.size
            .is_some_and(|size| self.present.end_from(0) >= size)
    }

    /// How many bytes are missing that nobody works on, of a blob whose size is known.
    pub(super) fn unclaimed(&self) -> u64 {
        let mut bytes = 0;
        let mut at = 0;
        while let Some(gap) = self.gap_from(at) {
            bytes += gap.end - gap.start;
            at = gap.end;
        }
        bytes
    }

    /// A reader waits for the byte at `offset`.
    pub(super) fn wait(&mut self, offset: u64) {
        *self.waiting.entry(offset).or_default() += 1;
    }

    /// It does not wait any more.
    pub(super) fn wait_no_more(&mut self, offset: u64) {
        if let Some(n) = self.waiting.get_mut(&offset) {
            *n -= 1;
            if *n == 0 {
                self.waiting.remove(&offset);
            }
        }
    }

    /// Whether some run reaches `offset` within `bytes` more.
    pub(super) fn reaches(&self, offset: u64, bytes: u64) -> bool {
        let near = |run: &Range<u64>| run.start <= offset && offset - run.start < bytes;
        self.runs.values().any(near)
    }

    /// The first place where a reader waits for a byte that no run reaches within `bytes` more.
    pub(super) fn stranded(&self, bytes: u64) -> Option<u64> {
        let size = self.size?;
        let is_stranded = |&offset: &u64| {
            offset < size && !self.is_present(offset) && !self.reaches(offset, bytes)
        };
        self.waiting.keys().copied().find(is_stranded)
    }

    /// Takes the run at the front, of at most `bytes`.
    pub(super) fn claim_front(&mut self, bytes: u64) -> Option<(RunId, Range<u64>)> {
        let gap = self.gap_from(0)?;
        Some(self.start(gap.start..gap.end.min(gap.start.saturating_add(bytes))))
    }

    /// Takes the next run of who works among others, of at most `bytes`: where a reader waits for what nobody works on,
    /// else front to back. Runs get shorter towards the end, down to `least`, so that all come to theirs at about the
    /// same time (guided self-scheduling; Polychronopoulos and Kuck, IEEE Transactions on Computers C-36, 1987).
    pub(super) fn claim(&mut self, bytes: u64, least: u64) -> Option<(RunId, Range<u64>)> {
        let workers = self.runs.values().filter(|run| !run.is_empty()).count() + 1;
        let share = self.unclaimed() / (2 * workers as u64);
        let bytes = bytes.min(share.max(least));
        let waited_for = |offset: u64| {
            let gap = self.gap_from(offset).filter(|gap| gap.start == offset)?;
            Some(gap.start..gap.end.min(gap.start.saturating_add(bytes)))
        };
        match self.waiting.keys().find_map(|&offset| waited_for(offset)) {
            Some(run) => Some(self.start(run)),
            None => self.claim_front(bytes),
        }
    }

    /// Takes the run at `offset`, away from whoever would come to it later.
    pub(super) fn seize(&mut self, offset: u64, bytes: u64) -> Option<(RunId, Range<u64>)> {
        let is_being_written = |(id, run): (&RunId, &Range<u64>)| {
            run.contains(&offset) && self.writing.get(id).is_some_and(|&end| offset < end)
        };
        if self.runs.iter().any(is_being_written) {
            return None;
        }
        for run in self.runs.values_mut() {
            if run.start < offset && offset < run.end {
                run.end = offset;
            }
        }
        let gap = self.gap_from(offset).filter(|gap| gap.start == offset)?;
        Some(self.start(gap.start..gap.end.min(gap.start.saturating_add(bytes))))
    }

    /// Lets a run grow over at most `bytes` behind it, or over the run behind it where nothing of that came yet: who
    /// waits for an answer does not stop who gets on. `false` when what follows is there already, on its way, or past
    /// the end.
    pub(super) fn extend(&mut self, id: RunId, bytes: u64) -> bool {
        let Some(end) = self.runs.get(&id).map(|run| run.end) else {
            return false;
        };
        let free = self.gap_from(end).filter(|gap| gap.start == end);
        let grown = match free {
            Some(gap) => gap.end.min(gap.start.saturating_add(bytes)),
            None => match self.take_over(end) {
                Some(end) => end,
                None => return false,
            },
        };
        self.runs.entry(id).and_modify(|run| run.end = grown);
        true
    }

    /// Takes the run at `start` from whoever has not begun to receive it, and says where it ends.
    fn take_over(&mut self, start: u64) -> Option<u64> {
        let writing = &self.writing;
        let idle = |(id, run): &(&RunId, &mut Range<u64>)| {
            run.start == start && !run.is_empty() && !writing.contains_key(id)
        };
        let (_, run) = self.runs.iter_mut().find(idle)?;
        run.start = run.end;
        Some(run.end)
    }

    /// Up to where a request for a run may go on, were it to grow: to the next bytes that are there or on their way.
    pub(super) fn open_end(&self, id: RunId) -> u64 {
        let end = self.left(id).end;
        let free = self.gap_from(end).filter(|gap| gap.start == end);
        free.map_or(end, |gap| gap.end)
    }

    /// What is still to come of a run.
    pub(super) fn left(&self, id: RunId) -> Range<u64> {
        self.runs.get(&id).cloned().unwrap_or_default()
    }

    /// Takes the bytes of a run that came up to `end`, to be written. It grows as far as that where it may, by at least
    /// `bytes`, and a little further, so that it is known whether to read on; but not beyond `last`, where what brings
    /// them ends. Gives what is wanted.
    pub(super) fn take(&mut self, id: RunId, end: u64, last: u64, bytes: u64) -> Range<u64> {
        while self.left(id).end <= end && self.left(id).end < last && self.extend(id, bytes) {}
        let left = self.left(id);
        self.writing.insert(id, end.min(left.end));
        left
    }

    /// The next bytes of a run, up to `end`, are there.
    pub(super) fn received(&mut self, id: RunId, end: u64) {
        if let Some(run) = self.runs.get_mut(&id) {
            self.present.insert(run.start..end);
            run.start = end;
        }
    }

    /// Nobody works on the run any more; what is still to come of it is free again.
    pub(super) fn release(&mut self, id: RunId) {
        self.writing.remove(&id);
        self.runs.remove(&id);
    }

    fn start(&mut self, run: Range<u64>) -> (RunId, Range<u64>) {
        let id = RunId(self.next);
        self.next += 1;
        self.runs.insert(id, run.clone());
        (id, run)
    }

    fn is_present(&self, offset: u64) -> bool {
        self.present.end_from(offset) > offset
    }

    /// The first range at or after `offset` that is missing and that nobody works on. Where the size is not known it
    /// has no end.
    fn gap_from(&self, offset: u64) -> Option<Range<u64>> {
        let size = self.size.unwrap_or(u64::MAX);
        let mut start = offset;
        // Every turn passes over what is there or a run, so the number of turns is bounded by theirs.
        loop {
            let after = self.present.end_from(start);
            let covering = self.runs.values().find(|run| run.contains(&after));
            match covering {
                Some(run) => start = run.end,
                None if after >= size => return None,
                None => {
                    let busy = self.runs.values().filter(|run| !run.is_empty());
                    let runs = busy.map(|run| run.start);
                    let next_run = runs.filter(|&start| start > after).min().unwrap_or(size);
                    let next_present = self.present.start_after(after).unwrap_or(size);
                    return Some(after..size.min(next_run).min(next_present));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(size: u64) -> Plan {
        let mut plan = Plan::default();
        plan.set_size(size);
        plan
    }

    fn claim(plan: &mut Plan, bytes: u64) -> Option<Range<u64>> {
        plan.claim(bytes, bytes).map(|(_, run)| run)
    }

    #[test]
    fn runs_come_front_to_back_and_never_twice() {
        let mut plan = plan(25);
        let taken: Vec<_> = std::iter::from_fn(|| claim(&mut plan, 10)).collect();
        assert_eq!(taken, [0..10, 10..20, 20..25]);
        assert_eq!(plan.unclaimed(), 0);
    }

    #[test]
    fn runs_get_shorter_towards_the_end() {
        let mut plan = plan(160);
        let mut taken = Vec::new();
        while let Some((_, run)) = plan.claim(60, 5) {
            taken.push(run.end - run.start);
        }
        assert_eq!(taken[..3], [60, 25, 12]);
        assert!(taken[3..].iter().rev().skip(1).all(|&bytes| bytes >= 5));
        assert_eq!(taken.iter().sum::<u64>(), 160);
    }

    #[test]
    fn where_a_reader_waits_comes_first() {
        let mut plan = plan(100);
        plan.wait(70);
        assert_eq!(claim(&mut plan, 10), Some(70..80));
        assert_eq!(claim(&mut plan, 10), Some(0..10));
        plan.wait_no_more(70);
        plan.wait(95);
        assert_eq!(claim(&mut plan, 10), Some(95..100));
    }

    #[test]
    fn a_run_grows_until_it_meets_another() {
        let mut plan = plan(100);
        let (first, _) = plan.claim(10, 10).expect("a run");
        assert!(plan.extend(first, 10));
        assert_eq!(plan.left(first), 0..20);
        plan.wait(50);
        let (second, run) = plan.claim(10, 10).expect("a run");
        assert_eq!((run, plan.open_end(first)), (50..60, 50));
        assert!(plan.extend(first, 1000));
        assert_eq!(plan.left(first), 0..50);
        plan.take(second, 55, u64::MAX, 10);
        assert!(!plan.extend(first, 10));
    }

    #[test]
    fn a_run_of_which_nothing_came_does_not_stop_one_that_gets_on() {
        let mut plan = plan(100);
        let (first, _) = plan.claim(10, 10).expect("a run");
        let (second, _) = plan.claim(10, 10).expect("a run");
        assert!(plan.extend(first, 10));
        assert_eq!(plan.left(first), 0..20);
        assert!(plan.left(second).is_empty());
    }

    #[test]
    fn a_run_that_is_given_up_is_taken_up_where_it_stopped() {
        let mut plan = plan(100);
        let (first, _) = plan.claim(50, 50).expect("a run");
        plan.received(first, 20);
        plan.release(first);
        assert_eq!(plan.present_from(0), 20);
        assert_eq!(claim(&mut plan, 50), Some(20..70));
    }

    #[test]
    fn a_stranded_reader_may_take_from_a_long_run() {
        let mut plan = plan(1000);
        let (first, _) = plan.claim(1000, 1000).expect("a run");
        plan.wait(900);
        assert_eq!(plan.stranded(2000), None);
        assert_eq!(plan.stranded(100), Some(900));
        let (_, seized) = plan.seize(900, 50).expect("a run");
        assert_eq!(seized, 900..950);
        assert_eq!(plan.left(first), 0..900);
        assert_eq!(plan.stranded(100), None);
        assert_eq!(plan.unclaimed(), 50);
    }

    #[test]
    fn without_a_size_one_run_goes_on_and_on() {
        let mut plan = Plan::default();
        let (first, run) = plan.claim(10, 10).expect("a run");
        assert_eq!(run, 0..10);
        plan.received(first, 10);
        assert!(plan.extend(first, 10));
        plan.received(first, 15);
        assert!(!plan.is_complete());
        plan.set_size(15);
        assert!(plan.is_complete());
    }

    proptest! {


        #[test]
        fn any_order_of_work_ends_with_every_byte_once(
            size in 0u64..200,
            steps in proptest::collection::vec((0u8..7, 0u64..200, 1u64..40), 0..120),
        ) {
            let mut plan = plan(size);
            let mut ids: Vec<RunId> = Vec::new();
            for (step, place, bytes) in steps {
                let id = ids.get(usize::try_from(place).expect("small") % ids.len().max(1)).copied();
                match (step, id) {
                    (0, _) => ids.extend(plan.claim(bytes, bytes).map(|(id, _)| id)),
                    (1, _) => plan.wait(place),
                    (2, _) => ids.extend(plan.seize(place, bytes).map(|(id, _)| id)),
                    (6, Some(id)) => {
                        let wanted = plan.take(id, plan.left(id).start + bytes, u64::MAX, bytes);
                        let end = wanted.end.min(wanted.start + bytes);
                        ids.extend(plan.seize(place, bytes).map(|(id, _)| id));
                        prop_assert_eq!(plan.left(id).start, wanted.start);
                        prop_assert!(plan.left(id).end >= end, "taken while it was written");
                        plan.received(id, end);
                    }
                    (3, Some(id)) => drop(plan.extend(id, bytes)),
                    (4, Some(id)) => {
                        let left = plan.left(id);
                        plan.received(id, left.end.min(left.start + bytes));
                    }
                    (5, Some(id)) => plan.release(id),
                    _ => {}
                }
                let mut runs: Vec<_> = plan.runs.values().filter(|run| !run.is_empty()).collect();
                runs.sort_by_key(|run| run.start);
                prop_assert!(runs.windows(2).all(|pair| pair[0].end <= pair[1].start));
                prop_assert!(runs.iter().all(|run| run.end <= size));
                prop_assert!(runs.iter().all(|run| (run.start..run.end).all(|byte| !plan.is_present(byte))));
            }
            for id in ids {
                plan.release(id);
            }
            while let Some((id, run)) = plan.claim(7, 7) {
                plan.received(id, run.end);
                plan.release(id);
            }
            prop_assert!(plan.is_complete());
        }
    }
}
