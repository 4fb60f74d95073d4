//! Who goes first.

use super::*;

const MIB: u64 = 1024 * 1024;

/// Evicts until nothing goes.
fn drain(policy: &mut Policy<u32>, since: u32) -> Vec<u32> {
    let victims = std::iter::from_fn(|| policy.evict(&(since..u32::MAX), |_| false));
    victims.map(|victim| victim.key).collect()
}

#[test]
fn what_was_used_once_goes_before_what_was_used_again() {
    let mut policy = Policy::new();
    for key in 0..4 {
        policy.insert(key, MIB, 0);
    }
    assert!(policy.used(&1, 100).is_some());
    assert_eq!(drain(&mut policy, 1000), [0, 2, 3, 1]);
    assert_eq!((policy.len(), policy.bytes()), (0, 0));
}

#[test]
fn uses_within_a_minute_are_one() {
    let mut policy = Policy::new();
    policy.insert(1, MIB, 100);
    for now in 100..160 {
        assert_eq!(policy.used(&1, now), None);
    }
    assert!(policy.used(&1, 160).is_some());
    assert_eq!(policy.used(&2, 1000), None, "it is not known");
}

#[test]
fn what_was_used_lately_stays() {
    let mut policy = Policy::new();
    for key in 0..100 {
        policy.insert(key, MIB, key);
    }
    let gone = drain(&mut policy, 40);
    assert_eq!(gone, (0..40).collect::<Vec<_>>());
    assert_eq!(policy.len(), 60);
    assert_eq!(policy.oldest(), Some(40));
}

#[test]
fn what_stays_is_passed_over_and_goes_in_its_turn_once_it_may() {
    let mut policy = Policy::new();
    for key in 0..3 {
        policy.insert(key, MIB, 0);
    }
    let mut gone = Vec::new();
    while let Some(victim) = policy.evict(&(1000..u32::MAX), |key| *key != 1) {
        gone.push(victim.key);
    }
    assert_eq!(gone, [1], "and it ends where nothing else may go");
    assert_eq!(drain(&mut policy, 1000), [2, 0]);
}

#[test]
fn a_use_in_the_future_spares_nothing() {
    let mut policy = Policy::new();
    policy.insert(1, MIB, 1_000_000);
    assert!(policy.evict(&(900..1060), |_| false).is_some());
}

#[test]
fn what_comes_back_skips_probation() {
    let mut policy = Policy::new();
    policy.insert(1, MIB, 0);
    assert_eq!(drain(&mut policy, 10), [1]);
    let note = policy.insert(1, MIB, 20);
    assert!(note.is_main);
    assert!(!policy.insert(2, MIB, 20).is_main);
    assert!(policy.insert(3, 100, 20).is_main, "it is small");
}

#[test]
fn notes_are_numbers() {
    for is_main in [false, true] {
        for uses in 0..=USES_MAX {
            let note = Note { is_main, uses };
            assert_eq!(Note::from_number(note.to_number()), Some(note));
        }
    }
    assert_eq!(Note::from_number(0), None);
    assert_eq!(Note::from_number(9), None);
    assert_eq!(Note::from_number(999_999_999), None);
}

#[test]
fn what_a_pass_does_not_see_is_gone() {
    let mut policy = Policy::new();
    for key in 0..10 {
        policy.insert(key, MIB, 0);
    }
    policy.begin_pass();
    for key in [1, 3, 5] {
        policy.restore(key, MIB, 0, None);
    }
    policy.insert(11, MIB, 0);
    policy.used(&7, 100);
    assert_eq!(policy.end_pass(100), 6);
    assert_eq!((policy.len(), policy.bytes()), (5, 5 * MIB));
    let mut left = drain(&mut policy, 1000);
    left.sort_unstable();
    assert_eq!(left, [1, 3, 5, 7, 11]);
}

#[test]
fn a_restart_keeps_the_order() {
    let mut policy = Policy::new();
    for key in [5, 3, 9, 1] {
        policy.restore(key, MIB, key, None);
    }
    policy.restore(7, MIB, 0, Note::from_number(6));
    policy.sort();
    assert_eq!(drain(&mut policy, 100), [1, 3, 5, 9, 7]);
}

#[test]
fn a_blob_takes_no_more_than_75_bytes_however_many_there_are() {
    // As large as what the evictor has for a key.
    type Key = (u64, [u64; 4]);
    let mut policy = Policy::new();
    let mut most = 0;
    for n in 0..1_200_000 {
        let key: Key = (n, [n; 4]);
        policy.restore(key, MIB, 0, None);
        if n >= 100_000 && n.is_multiple_of(1000) {
            let queues = [&policy.main, &policy.probation].map(|queue| queue.slots.capacity());
            let queues = queues.iter().sum::<usize>() * size_of::<u32>();
            let bytes = policy.slots.bytes_in_memory() + queues;
            most = most.max(bytes.div_ceil(policy.len()));
        }
    }
    assert!(most <= 75, "{most}");
}

#[test]
fn bytes_add_up_whatever_happens() {
    let mut policy = Policy::new();
    let mut random = fastrand::Rng::with_seed(1);
    for now in 0..20_000 {
        let key = random.u32(0..500);
        match random.u8(0..10) {
            0..4 => {
                policy.insert(key, random.u64(1..3) * MIB, now);
            }
            4..7 => {
                policy.used(&key, now);
            }
            7 => {
                policy.remove(&key);
            }
            _ => {
                policy.evict(&(now.saturating_sub(100)..now + 1), |_| false);
            }
        }
        let live = || policy.slots.live();
        assert_eq!(policy.bytes(), live().map(|slot| slot.bytes).sum::<u64>());
        assert_eq!(policy.len(), live().count());
    }
    let n_slots = policy.slots.made();
    assert!(n_slots < 1500, "slots are used again: {n_slots}");
}
